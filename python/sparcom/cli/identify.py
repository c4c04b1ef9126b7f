"""`sparcom identify RUN`: select sets again from stored counts."""

import argparse
from dataclasses import fields
from typing import Any

from sparcom.cli.options import add_field
from sparcom.config import RunConfig
from sparcom.errors import InputError
from sparcom.selection.rules import Selection

_KEYS = tuple(f.name for f in fields(Selection))


def add_identify(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", help="run directory")
    known = {f.name: f for f in fields(RunConfig)}
    for name in _KEYS:
        add_field(parser, known[name])
    parser.add_argument(
        "--baseline", default="", metavar="RUN",
        help="with --rule lift:F: a run of the same model, say on plain text, over which neurons "
        "are ranked (default: all instructions of the run)",
    )  # fmt: skip


def identify_command(arguments: argparse.Namespace) -> tuple[Any, int]:
    """Select the sets of a stored run again."""
    from sparcom.pipeline.identify import identify

    given = {name: getattr(arguments, name) for name in _KEYS if name in arguments}
    if arguments.baseline:
        rule = given.get("rule", "")
        if not rule.startswith("lift:"):
            raise InputError(f"--baseline: expected with --rule lift:F, got {rule or 'no rule'}")
        given["rule"] = f"{rule}@{arguments.baseline}"
    summary = identify(arguments.run, progress=arguments.progress, **given)
    if arguments.json:
        return summary, 0
    how = f"{summary['rule']}, ties {summary['ties']}"
    text = f"{summary['instructions']} sets of {how} in {arguments.run}"
    return f"{text}\nits page is written again by: sparcom report {arguments.run}", 0
