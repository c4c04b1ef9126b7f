"""The command line: parse, call, print. Exit codes: 0 done, 1 failure, 2 wrong usage or input."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, NoReturn

from sparcom.cli.ablate import ablate_command, add_ablate
from sparcom.cli.attribute import add_attribute, attribute_command
from sparcom.cli.compare import add_compare, compare_command
from sparcom.cli.corpus import add_corpus_commands
from sparcom.cli.doctor import add_doctor, doctor_command
from sparcom.cli.export import add_export, export_command
from sparcom.cli.identify import add_identify, identify_command
from sparcom.cli.options import add_config, config_of
from sparcom.cli.report import add_report, add_view, report_command, view_command
from sparcom.cli.run import count_command, run_command
from sparcom.cli.serve import add_serve, serve_command
from sparcom.cli.study import add_study, study_command
from sparcom.cli.trace import add_trace, trace_command
from sparcom.cli.verify import add_verify, verify_command
from sparcom.errors import InputError, RayDiedError, SparcomError
from sparcom.formatting import safe_lines

Handler = Callable[[argparse.Namespace], tuple[Any, int]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    quiet = arguments.json or not sys.stderr.isatty()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if quiet:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    arguments.progress = not quiet
    try:
        result, code = arguments.handler(arguments)
        print(json.dumps(result, default=_plain) if arguments.json else result, flush=True)
    except SparcomError as error:
        print(safe_lines(f"sparcom: {error}"), file=sys.stderr, flush=True)
        if isinstance(error, RayDiedError):
            os._exit(1)  # what Ray does at exit crashes without its servers
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt as stop:
        print(f"sparcom: interrupted{_left(arguments)}", file=sys.stderr)
        return 143 if type(stop).__name__ == "Terminated" else 130
    except BrokenPipeError:  # the reader has gone, and Python's own flush at exit would fail too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _left(arguments: argparse.Namespace) -> str:
    """What can be done about what an interrupted command leaves."""
    if arguments.handler is study_command:
        return "; the same command finishes the study"
    if arguments.handler not in (run_command, count_command):
        return ""
    from sparcom.store import RunStore

    try:
        begun = RunStore(config_of(arguments).run_dir()).is_run()
    except SparcomError:
        return ""
    return "; --resume finishes the run" if begun else ""


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors show nothing that acts on a terminal."""

    def error(self, message: str) -> NoReturn:
        super().error(safe_lines(message, 400))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="sparcom",
        description="Which neurons and experts of a language model work for which instructions.",
    )
    parser.add_argument("--version", action="version", version=f"sparcom {version('sparcom')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add = partial(_add, commands)
    add_config(add("run", run_command, "count a corpus, select sets, write the report"))
    add_config(add("count", count_command, "count a corpus and select sets"))
    add_identify(add("identify", identify_command, "select sets again from stored counts"))
    add_report(add("report", report_command, "write the page and the figures of a run"))
    add_view(add("view", view_command, "serve the page of stored runs on this machine"))
    add_compare(add("compare", compare_command, "how tuning changed a model's sets"))
    add_attribute(
        add("attribute", attribute_command, "what every neuron adds to an answer's likelihood")
    )
    add_ablate(add("ablate", ablate_command, "whether a set of components matters"))
    add_study(add("study", study_command, "several models, base and tuned, on one page"))
    add_trace(add("trace", trace_command, "what some neurons do, token by token"))
    add_export(add("export", export_command, "what a run found, as other tools read it"))
    add_serve(add("serve", serve_command, "serve a model with components scaled, by vLLM"))
    corpus = commands.add_parser("corpus", help="build, check and look at a corpus")
    of_corpus = corpus.add_subparsers(dest="corpus_command", required=True, metavar="COMMAND")
    add_corpus_commands(partial(_add, of_corpus))
    add_verify(add("verify", verify_command, "prove that a model's counted pass is its own"))
    add_doctor(add("doctor", doctor_command, "what this machine can do, and why not more"))
    return parser


def _add(commands: Any, name: str, handler: Handler, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=handler)
    return parser
