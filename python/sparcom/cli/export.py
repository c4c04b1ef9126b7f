"""`sparcom export RUN FORMAT OUT`: what a run found, as other tools read it."""

import argparse
from typing import Any


def add_export(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    given = parser.add_argument
    given("run", help="run directory")
    given("format", help="neurons-json (lists for a forward hook), lape (neurons by category and "
          "layer), lape-counts (activation counts by category), steermoe (experts of a category "
          "with their risk difference), expert-list (experts of each layer, most used "
          "first), signs, magnitudes, expert-scores (tables by category)")  # fmt: skip
    given("out", help="file to write; lape-counts: a folder; tables: .csv or .parquet")
    given("--category", help="steermoe: compare it with the others; neurons-json, expert-list "
          "and tables: only it")  # fmt: skip
    given("--table", default="specific_neurons",
          help="neurons-json: a table of neurons (default: specific_neurons)")  # fmt: skip


def export_command(arguments: argparse.Namespace) -> tuple[Any, int]:
    """Write the files and name them."""
    from sparcom.exporting import export
    from sparcom.store import Run

    files = export(Run(arguments.run), arguments.format, arguments.out,
                   category=arguments.category, table=arguments.table)  # fmt: skip
    names = [str(file) for file in files]
    return ({"files": names} if arguments.json else "\n".join(names)), 0
