"""`sparcom doctor`: what this machine can do, and why not more; or what counting a model takes."""

import argparse
from dataclasses import fields
from typing import Any

from sparcom.cli.options import add_field
from sparcom.config import RunConfig

_OF_MODEL = ("dtype", "slots", "batch_tokens", "trust_remote_code")


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "--model", help="say what counting this model takes, from its config: no weight is read"
    )
    group = parser.add_argument_group("with --model")
    for f in fields(RunConfig):
        if f.name in _OF_MODEL:
            add_field(group, f)


def doctor_command(arguments: argparse.Namespace) -> tuple[Any, int]:
    """Examine this machine, or a model; exit code 1 if no engine counts the model."""
    if arguments.model is not None:
        from sparcom.planning.model_report import render as render_model
        from sparcom.planning.model_report import report_model
        from sparcom.planning.options import fixed_batch_tokens

        defaults = RunConfig()
        given = {name: getattr(arguments, name, getattr(defaults, name)) for name in _OF_MODEL}
        given["batch_tokens"] = fixed_batch_tokens(given["batch_tokens"])
        report = report_model(arguments.model, **given)
        shown = report.to_json() if arguments.json else render_model(report)
        return shown, 0 if report.counted else 1
    from sparcom.doctor import examine, render

    facts = examine()
    return ({"facts": facts} if arguments.json else render(facts)), 0
