"""`sparcom report RUN`: the page and the figures of a run."""

import argparse
from typing import Any

from sparcom.cli.analysis_options import add_analysis_options, analysis_options


def add_report(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", help="run directory")
    add_analysis_options(parser)


def report_command(arguments: argparse.Namespace) -> tuple[Any, int]:
    """Analyse a run and write its page."""
    from sparcom.report.page import write_report

    page = write_report(arguments.run, analysis_options(arguments))
    return ({"report": page} if arguments.json else f"report: {page}"), 0
