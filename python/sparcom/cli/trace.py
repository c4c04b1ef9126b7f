"""`sparcom trace RUN`: what some neurons do, token by token."""

import argparse
from pathlib import Path
from typing import Any


def add_trace(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    given = parser.add_argument
    given("run", help="run directory")
    given("--unit", action="append", dest="units", required=True, metavar="UNIT",
          help="LAYER:UNIT, LAYER:EXPERT:UNIT, LAYER:shared:UNIT, or a .csv or .parquet list; may "
          "be given several times")  # fmt: skip
    given("--id", action="append", dest="ids", default=[], metavar="ID",
          help="an instruction of the run; may be given several times")  # fmt: skip
    given("--text", action="append", dest="texts", default=[], metavar="TEXT",
          help="a text of your own, as a user writes it; may be given several times")  # fmt: skip
    given("--top", type=int, metavar="N",
          help="the N instructions on which each unit fires most (default: 3, without --id and "
          "--text)")  # fmt: skip
    given("--out", type=Path, help="write the table: a .parquet or .csv file")
    given("--engine", choices=("transformers", "vllm"), help="(default: the run's)")
    given("--cpus", type=int, dest="threads", help="CPU threads (default: all cores)")


def trace_command(arguments: argparse.Namespace) -> tuple[Any, int]:
    """Trace units on instructions of a run, and on texts."""
    from sparcom.component_list import ending_of, write_components
    from sparcom.errors import InputError
    from sparcom.store import Run
    from sparcom.tracing.of_run import top_instructions, trace
    from sparcom.tracing.units import parse_units

    if arguments.top is not None and arguments.top < 1:
        raise InputError(f"trace: top: must be at least 1, got {arguments.top}")
    if arguments.out:
        ending_of(arguments.out, "trace: out")
    run = Run(arguments.run)
    named = arguments.ids or arguments.texts
    most = arguments.top or (0 if named else 3)
    ids = list(arguments.ids)
    if most:
        index = parse_units(arguments.units, run.space)
        ids += [one.id for best in top_instructions(run, index, most) for one in best]
        if not ids:
            raise InputError("trace: these units fire on no instruction of the run; give a --text")
    traces = trace(run, arguments.units, ids, arguments.texts, engine=arguments.engine,
                       threads=arguments.threads)  # fmt: skip
    if arguments.out:
        write_components(arguments.out, traces.table())
    if arguments.json:
        return {"rows": traces.table().to_pylist()}, 0
    return _render(traces, arguments.out), 0


def _render(traces: Any, out: Path | None) -> str:
    from sparcom.formatting import printable, shorten

    lines = []
    for column, name in enumerate(traces.names()):
        lines.append(f"unit {name}")
        for at, instruction in enumerate(traces.ids):
            fired = traces.fired[at][:, column]
            head = f"  {shorten(instruction, 60)}: fires at {fired.sum()} of {len(fired)} tokens"
            lines += [head, "", printable(traces.render(column, at), keep="\n"), ""]
    return "\n".join([*lines, *([f"table: {out}"] if out else [])]).rstrip()
