"""`sparcom compare BASE TUNED`: how tuning changed a model's sets."""

import argparse
from dataclasses import asdict
from typing import Any

from sparcom.cli.analysis_options import add_analysis_options, analysis_options
from sparcom.cli.renamed import add_renamed
from sparcom.errors import InputError


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN",
                        help="run of the base model, then of its tuned model; more than two are "
                        "checkpoints in order: a trajectory")  # fmt: skip
    parser.add_argument("--noise-floor", nargs=2, metavar="RUN",
                        help="two runs of one model in different dtypes or engines: only what "
                        "exceeds their difference counts as moved")  # fmt: skip
    add_renamed(parser, "--floor", "--noise-floor")
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
    noise = noise_floor(*map(Run, arguments.noise_floor)) if arguments.noise_floor else None
    if len(runs) > 2:
        rows = trajectory(runs, options, noise_floor=noise).to_pylist()
        warnings = runs[-1].table("trajectory_warnings")["warning"].to_pylist()
        if arguments.json:
            return {"rows": rows, "warnings": warnings}, 0
        return _render_trajectory(rows, warnings, arguments.runs[-1]), 0
    result = compare(runs[0], runs[1], options, noise_floor=noise)
    return (_to_json(result) if arguments.json else _render(result, arguments.runs[1])), 0


def _to_json(result: Any) -> dict:
    families: dict[str, dict] = {}
    for family, change in result.alterations.items():
        named = families[family] = {name: {} for name in (*change.categories, "all")}
        for category, figure, estimate in change.figures():
            named[category][figure.replace(" ", "_")] = asdict(estimate)
    return {
        "base": result.base,
        "tuned": result.tuned,
        "instructions": result.instructions,
        "families": families,
        "warnings": list(result.warnings),
    }


def _render(result: Any, tuned: str) -> str:
    from sparcom.formatting import render_table

    lines = [f"{result.base} against {result.tuned}: {result.instructions} instructions"]
    for change in result.alterations.values():
        lines += ["", render_table(*_family_table(change))]
    lines += [
        "",
        "more: how much more the sets moved than those of the other categories, length and source "
        "held fixed; q: Benjamini-Hochberg over the categories",
        *(f"warning: {text}" for text in result.warnings),
        f"tables: {tuned}/analysis/alteration_*.parquet",
    ]
    return "\n".join(lines)


def _family_table(change: Any) -> tuple[list[str], list[list[str]]]:
    """(head, rows): a row for each category, "all" last."""
    from sparcom.report.format import interval, number, p_value

    head = [change.family, "Jaccard", "95 % interval", "chance", "more", "q", "layer shift"]
    rows = []
    for at, name in enumerate((*change.categories, "all")):
        overlap, shift = change.overlap[at], change.shift[at]
        more, q = "-", "-"
        if at < len(change.against_others):
            other = change.against_others[at]
            more, q = number(other.value, signed=True), p_value(other.p)
        row = [
            name, number(overlap.value), interval(overlap.low, overlap.high),
            number(overlap.chance), more, q, number(shift.value),
        ]  # fmt: skip
        if change.noise_floor:
            beyond = change.beyond_noise_floor[at]
            moved = "moved" if beyond.p is not None and beyond.p <= 0.05 else "not beyond it"
            row += [
                number(change.noise_floor[at].value),
                "undetermined" if beyond.p is None else moved,
            ]
        rows.append(row)
    return [*head, "noise floor", ""] if change.noise_floor else head, rows


def _render_trajectory(rows: list[dict], warnings: list[str], last: str) -> str:
    from sparcom.formatting import render_table
    from sparcom.report.format import interval, number

    body = [
        [r["run"], r["against"], r["family"], r["category"], number(r["value"]),
         interval(r["low"], r["high"]), number(r["chance"])]
        for r in rows
        if r["figure"] == "overlap"
    ]  # fmt: skip
    noise = [r["value"] for r in rows if r["figure"] == "noise floor"]
    head = ["run", "against", "family", "category", "Jaccard", "95 % interval", "chance"]
    if noise:
        head.append("noise floor")
        for row, value in zip(body, noise, strict=True):
            row.append(number(value))
    lines = [render_table(head, body), "", *(f"warning: {text}" for text in warnings)]
    return "\n".join([*lines, f"tables: {last}/analysis/trajectory.parquet"])
