"""Sections of what other commands left in a run's analysis/: `sparcom compare` and `ablate`."""

from collections.abc import Iterator
from typing import Any

from sparcom.report.sections import FAMILY_NAMES, Section, Table
from sparcom.store import Run


def stored_sections(run: Run) -> list[Section]:
    """Sections of the stored comparison and ablation, where there are any."""
    makers = {"alteration_summary": _alteration, "ablation": _ablation}
    return [
        make(run.store.read_table(f"analysis/{name}.parquet").to_pylist())
        for name, make in makers.items()
        if run.store.files.is_file(f"analysis/{name}.parquet")
    ]


def _alteration(rows: list[dict[str, Any]]) -> Section:
    section = Section(f"Change by tuning, against {rows[0]['base']}")
    section.texts.append(
        "Overlap of an instruction's sets in the base and in this model: mean Jaccard. Chance: "
        "random sets of the same sizes. The shift is the share of a set that would have to move to "
        "another layer; its chance has the two runs swapped at random. Beyond the floor: how much "
        "less they overlap than one model with itself in another dtype or engine."
    )
    figures = ("overlap", "layer shift", "beyond floor")
    if not any(row["figure"] == "beyond floor" for row in rows):
        section.texts.append(
            "No precision floor was given (--floor): rounding alone may explain small changes."
        )
    for family, name, group in _cells(rows, "family"):
        body = []
        for category in dict.fromkeys(row["category"] for row in group):
            of = {row["figure"]: row for row in group if row["category"] == category}
            cells = [text for figure in figures[:2] for text in _estimate(of[figure])]
            body.append((category, *cells, _interval(of.get("beyond floor", {}), "")))
        head = ("", "overlap", "95 % interval", "chance", "shift", "95 % interval", "chance",
                "beyond floor")  # fmt: skip
        section.tables.append(Table((name, *head[1:]), body))
        moved = [
            row["category"] for row in group
            if row["figure"] == "beyond floor" and (row["low"] or 0) > 0
        ]  # fmt: skip
        if moved:
            section.statements.append(
                f"Tuning moved the {FAMILY_NAMES[family]} of {', '.join(moved)} beyond the "
                "precision floor."
            )
    return section


def _ablation(rows: list[dict[str, Any]]) -> Section:
    section, draws = Section("Ablation"), rows[0]["random_sets"]
    section.texts.append(
        "Loss on reference answers, nats per token, with a set silenced, minus that of the whole "
        f"model, over {max(row['instructions'] for row in rows)} instructions. Random: mean effect "
        f"of {draws} random sets with as many components of every layer and like frequency; so few "
        f"bound every p at {1 / (1 + draws):.2g}. Beyond random: the difference of the two."
    )
    for name, _, group in _cells(rows, "set"):
        head = (f"{name}: {group[0]['size']:,} {group[0]['family']}, {group[0]['how']}",
                "loss", "effect", "95 % interval", "random", "beyond random")  # fmt: skip
        body = [
            (row["category"], _figure(row["loss"]), *_estimate(row), _interval(row, "beyond_"))
            for row in group
        ]
        section.tables.append(Table(head, body))
        matters = [
            row["category"] for row in group
            if row["category"] != "all" and (row["beyond_low"] or 0) > 0
        ]  # fmt: skip
        section.statements.append(
            f"Without the set {name} the model loses more than without random ones in "
            f"{', '.join(matters) or 'no category'}."
        )
    return section


def _cells(rows: list[dict], key: str) -> Iterator[tuple[str, str, list[dict]]]:
    for value in dict.fromkeys(row[key] for row in rows):
        yield value, FAMILY_NAMES.get(value, value), [row for row in rows if row[key] == value]


def _estimate(row: dict[str, Any]) -> tuple[str, str, str]:
    return _figure(row["value"]), _interval(row, ""), _figure(row["chance"])


def _interval(row: dict[str, Any], prefix: str) -> str:
    low, high = row.get(f"{prefix}low"), row.get(f"{prefix}high")
    return "-" if low is None else f"{_figure(low)} to {_figure(high)}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
