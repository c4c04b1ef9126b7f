"""The command line: parse, call, print. Exit codes: 0 done, 1 failure, 2 wrong usage or input."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import partial
from types import NoneType
from typing import Any

from sparcom.cli.ablate import ablate_command, add_ablate
from sparcom.cli.analysis_options import add_analysis_options, analysis_options
from sparcom.cli.compare import add_compare, compare_command
from sparcom.cli.corpus import add_corpus_commands
from sparcom.config import RunConfig, flag, load_config
from sparcom.errors import InputError, SparcomError

Handler = Callable[[argparse.Namespace], Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    quiet = arguments.json or not sys.stderr.isatty()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1" if quiet else "0")
    arguments.progress = not quiet
    try:
        result, code = arguments.handler(arguments)
        print(json.dumps(result, default=_plain) if arguments.json else result, flush=True)
    except SparcomError as error:
        print(f"sparcom: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt as stop:
        print("sparcom: interrupted; --resume finishes the run", file=sys.stderr)
        return 143 if type(stop).__name__ == "Terminated" else 130
    except BrokenPipeError:  # the reader has gone, and Python's own flush at exit would fail too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) else str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sparcom",
        description="Which neurons and experts of a language model work for which instructions.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = _add(commands, "run", _run, "count a corpus, select sets, write the report")
    count = _add(commands, "count", _count, "count a corpus and select sets")
    for command in (run, count):
        _add_config(command)
    identify = _add(commands, "identify", _identify, "select sets anew from stored counts")
    identify.add_argument("run", help="run directory")
    for name in ("rule", "expert_rule", "ties", "pool"):
        _add_field(identify, next(f for f in fields(RunConfig) if f.name == name))
    report = _add(commands, "report", _report, "write the page and the figures of a run")
    report.add_argument("run", help="run directory")
    add_analysis_options(report)
    add_compare(_add(commands, "compare", compare_command, "how tuning changed a model's sets"))
    add_ablate(_add(commands, "ablate", ablate_command, "whether a set of components matters"))
    corpus = commands.add_parser("corpus", help="build, check and look at a corpus")
    of_corpus = corpus.add_subparsers(dest="corpus_command", required=True, metavar="COMMAND")
    add_corpus_commands(partial(_add, of_corpus))
    _add(commands, "doctor", _doctor, "what this machine can do, and why not more")
    return parser


def _add(commands: Any, name: str, handler: Handler, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=handler)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", help="TOML file with the keys below; flags override it")
    parser.add_argument("--resume", action="store_true", help="finish a run that was stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing run")
    target: Any = parser
    for f in fields(RunConfig):
        if "group" in f.metadata:
            target = parser.add_argument_group(f.metadata["group"])
        _add_field(target, f)


def _add_field(target: Any, f: Any) -> None:
    """A flag for one config field; an absent one leaves no trace: the config's value stays."""
    text = f.metadata["help"]
    if f.type is bool:
        target.add_argument(
            flag(f.name), action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS,
            help=text,
        )  # fmt: skip
        return
    if f.type == tuple[str, ...]:
        target.add_argument(
            flag(f.name), action="append", default=argparse.SUPPRESS, metavar="OURS=X",
            help=f"{text} (may be given several times)",
        )  # fmt: skip
        return
    kinds = [k for k in getattr(f.type, "__args__", (f.type,)) if k is not NoneType]
    shown = f" (default: {f.default})" if f.default is not None else ""
    target.add_argument(
        flag(f.name), type=kinds[0], choices=f.metadata.get("choices"), default=argparse.SUPPRESS,
        metavar=None if f.metadata.get("choices") else kinds[0].__name__.upper(),
        help=text.replace("%", "%%") + shown,
    )  # fmt: skip


def _config(arguments: argparse.Namespace) -> RunConfig:
    given = {f.name: getattr(arguments, f.name) for f in fields(RunConfig) if f.name in arguments}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return load_config(arguments.config, given)


def _count(arguments: argparse.Namespace) -> tuple[Any, int]:
    from sparcom.pipeline import run_count

    summary = run_count(
        _config(arguments),
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        progress=arguments.progress,
    )
    rate = summary.prompt_tokens / summary.seconds if summary.seconds else 0.0
    text = (
        f"{summary.instructions} instructions, {summary.tokens} counted tokens in "
        f"{summary.seconds:.1f} s ({rate:.0f} prompt tokens/s with start-up)\n"
        f"run: {summary.location}"
    )
    if summary.failed:
        text += f"\n{summary.failed} instructions failed: see {summary.location}/failed"
    return (asdict(summary) if arguments.json else text), 1 if summary.failed else 0


def _run(arguments: argparse.Namespace) -> tuple[Any, int]:
    from sparcom.report.page import write_report

    counted, code = _count(arguments)
    location = counted["location"] if arguments.json else _config(arguments).run_dir()
    page = write_report(location)
    if arguments.json:
        return {**counted, "report": page}, code
    return f"{counted}\nreport: {page}", code


def _identify(arguments: argparse.Namespace) -> tuple[Any, int]:
    from sparcom.pipeline import run_identify

    given = {
        name: getattr(arguments, name)
        for name in ("rule", "expert_rule", "ties", "pool")
        if name in arguments
    }
    summary = run_identify(arguments.run, given, progress=arguments.progress)
    if arguments.json:
        return summary, 0
    how = f"{summary['rule']}, ties {summary['ties']}"
    text = f"{summary['instructions']} sets of {how} in {arguments.run}"
    return f"{text}\nits page is written anew by: sparcom report {arguments.run}", 0


def _report(arguments: argparse.Namespace) -> tuple[Any, int]:
    from sparcom.report.page import write_report

    page = write_report(arguments.run, analysis_options(arguments))
    return ({"report": page} if arguments.json else f"report: {page}"), 0


def _doctor(arguments: argparse.Namespace) -> tuple[Any, int]:
    from sparcom.doctor import examine, render

    facts = examine()
    return ({"facts": facts} if arguments.json else render(facts)), 0
