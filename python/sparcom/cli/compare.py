"""`sparcom compare BASE TUNED`: how tuning changed a model's sets."""

import argparse
from dataclasses import asdict
from typing import Any

from sparcom.cli.analysis_options import add_analysis_options, analysis_options
from sparcom.errors import InputError


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN",
                        help="run of the base model, then of its tuned model; more than two are "
                        "checkpoints in order: a trajectory")  # fmt: skip
    parser.add_argument("--floor", nargs=2, metavar="RUN",
                        help="two runs of one model in different dtypes or engines: only what "
                        "exceeds their difference counts as moved")  # fmt: skip
    add_analysis_options(parser)


def compare_command(arguments: argparse.Namespace) -> tuple[Any, int]:
    """Compare two runs, or follow several; tables go to the last run's analysis/."""
    from sparcom.analysis.tuning.compare import compare
    from sparcom.analysis.tuning.noise_floor import noise_floor
    from sparcom.analysis.tuning.trajectory import trajectory
    from sparcom.store import Run

    options = analysis_options(arguments)
    runs = [Run(location) for location in arguments.runs]
    if len(runs) < 2:
        raise InputError("compare: expected two runs or more, got one")
    floor = noise_floor(*(Run(f) for f in arguments.floor)) if arguments.floor else None
    if len(runs) > 2:
        rows = trajectory(runs, options, floor=floor).to_pylist()
        warned = runs[-1].store.read_table("trajectory_warnings")
        warnings = warned["warning"].to_pylist()
        if arguments.json:
            return {"rows": rows, "warnings": warnings}, 0
        return _render_trajectory(rows, warnings, arguments.runs[-1]), 0
    result = compare(*runs, options, floor=floor)
    return (_to_json(result) if arguments.json else _render(result, arguments.runs[1])), 0


def _to_json(result: Any) -> dict:
    return {
        "base": result.base,
        "tuned": result.tuned,
        "instructions": result.instructions,
        "families": {
            family: {
                name: {
                    "jaccard": asdict(change.overlap[at]),
                    "layer_shift": asdict(change.shift[at]),
                    "floor": asdict(change.floor[at]) if change.floor else None,
                    "beyond_floor": asdict(change.beyond_floor[at])
                    if change.beyond_floor
                    else None,
                }
                for at, name in enumerate((*change.categories, "all"))
            }
            for family, change in result.alterations.items()
        },
        "warnings": list(result.warnings),
    }


def _render(result: Any, tuned: str) -> str:
    from sparcom.formatting import render_table

    lines = [f"{result.base} against {result.tuned}: {result.instructions} instructions"]
    for family, change in result.alterations.items():
        head = [family, "Jaccard", "95 % interval", "chance", "layer shift"]
        rows = []
        for at, name in enumerate((*change.categories, "all")):
            overlap, shift = change.overlap[at], change.shift[at]
            interval = f"{_figure(overlap.low)} to {_figure(overlap.high)}"
            figures = (_figure(overlap.value), interval, _figure(overlap.chance))
            row = [name, *figures, _figure(shift.value)]
            if change.beyond_floor:
                beyond = change.beyond_floor[at]
                moved = beyond.low is not None and beyond.low > 0
                row += [_figure(change.floor[at].value), "moved" if moved else "not beyond it"]
            rows.append(row)
        if change.beyond_floor:
            head += ["noise floor", ""]
        lines += ["", render_table(head, rows)]
    lines += ["", *(f"warning: {text}" for text in result.warnings)]
    lines.append(f"tables: {tuned}/analysis/alteration_*.parquet")
    return "\n".join(lines)


def _render_trajectory(rows: list[dict], warnings: list[str], last: str) -> str:
    from sparcom.formatting import render_table

    shown = [
        [r["run"], r["against"], r["family"], r["category"], _figure(r["value"]),
         f"{_figure(r['low'])} to {_figure(r['high'])}", _figure(r["chance"])]
        for r in rows
        if r["figure"] == "overlap"
    ]  # fmt: skip
    floors = [r["value"] for r in rows if r["figure"] == "noise floor"]
    head = ["run", "against", "family", "category", "Jaccard", "95 % interval", "chance"]
    if floors:
        head.append("noise floor")
        for row, value in zip(shown, floors, strict=True):
            row.append(_figure(value))
    lines = [render_table(head, shown), "", *(f"warning: {text}" for text in warnings)]
    return "\n".join([*lines, f"tables: {last}/analysis/trajectory.parquet"])


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
