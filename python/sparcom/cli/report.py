"""`sparcom report RUN ...`: the page and the figures; `sparcom view RUN ...`: the page, served."""

import argparse
import sys
from contextlib import suppress
from typing import Any

from sparcom.cli.analysis_options import add_analysis_options, analysis_options


def add_report(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "run", nargs="+", help="run directory; of several, the last also gets runs.html, with all"
    )
    add_analysis_options(parser)


def report_command(arguments: argparse.Namespace) -> tuple[Any, int]:
    """Analyse runs and write their pages."""
    from sparcom.report.page import write_report

    page = write_report(arguments.run, analysis_options(arguments))
    return ({"report": page} if arguments.json else f"report: {page}"), 0


def add_view(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", nargs="+", help="run directory that sparcom report has analysed")
    parser.add_argument(
        "--port", type=int, default=0, metavar="INT",
        help="port on 127.0.0.1 (default: a free one)",
    )  # fmt: skip


def view_command(arguments: argparse.Namespace) -> tuple[Any, int]:
    """Serve the page of analysed runs on this machine until Ctrl-C."""
    from sparcom.report.view import PageServer

    with PageServer(arguments.run, arguments.port) as server:
        print(f"view: {server.url} (Ctrl-C ends it)", file=sys.stderr, flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
        return ({"view": server.url} if arguments.json else "view: ended"), 0
