"""`sparcom study CONFIG`: several models, base and tuned, from their counts to one page."""

import argparse
from dataclasses import asdict
from typing import Any


def add_study(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "config",
        help="TOML file of the study, such as configs/small.toml; given again, the same command "
        "finishes what is missing",
    )
    parser.add_argument("--out", metavar="DIR", help="directory of the study (default: the file's)")


def study_command(arguments: argparse.Namespace) -> tuple[Any, int]:
    """Count, compare and ablate every model of a study, and write its page."""
    from sparcom.study.config import load_study

    study = load_study(arguments.config, out=arguments.out)
    from sparcom.study.run import run_study  # imports what only a study that is sound needs

    summary = run_study(study, bars=arguments.progress, said=not arguments.json)
    code = 1 if summary.problems or summary.set_aside else 0
    return (asdict(summary) if arguments.json else _render(summary)), code


def _render(summary: Any) -> str:
    lines = [
        f"{len(summary.done)} steps done in {summary.seconds:.1f} s, {len(summary.there)} were "
        "there already",
        *(f"not done: {name}: {text}" for name, text in summary.problems.items()),
    ]
    if summary.set_aside:
        lines.append(f"{summary.set_aside} instructions were set aside: see failed/ of the runs")
    if summary.problems:
        lines.append("the same command does what is missing")
    lines.append(f"study: {summary.page or summary.location}")
    return "\n".join(lines)
