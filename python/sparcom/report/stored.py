"""Sections of what `sparcom compare` and `ablate` left in a run's analysis/."""

from collections.abc import Iterator
from typing import Any

from sparcom.report import figures
from sparcom.report.section import FAMILY_NAMES, Picture, Section, Table
from sparcom.store import Run

_ALPHA = 0.05


def stored_sections(run: Run) -> list[Section]:
    """Sections of the stored comparison, trajectory and ablation, where there are any."""
    makers = {"alteration_summary": _alteration, "trajectory": _trajectory, "ablation": _ablation}
    return [make(run, rows) for name, make in makers.items() if (rows := _rows(run, name))]


def _rows(run: Run, name: str) -> list[dict[str, Any]]:
    """A stored table; empty where there is none."""
    return run.store.read_table(name).to_pylist() if name in run.tables else []


def _warnings(run: Run, name: str) -> list[str]:
    return [f"Note: {row['warning']}." for row in _rows(run, name)]


def _alteration(run: Run, rows: list[dict[str, Any]]) -> Section:
    section = Section(f"Change by tuning, against {rows[0]['base']}")
    section.texts.append(
        "Overlap of an instruction's sets in the base and in this model: mean Jaccard. Chance: "
        "random sets of the same sizes. The shift is the share of a set that would have to move to "
        "another layer; its chance has the two runs swapped at random. Noise floor: the "
        "overlap of one model with itself in another dtype or engine; beyond it: how much less "
        "these two overlap."
    )
    section.texts += _warnings(run, "alteration_warnings")
    for family, name, group in _cells(rows, "family"):
        body = []
        for category in dict.fromkeys(row["category"] for row in group):
            of = {row["figure"]: row for row in group if row["category"] == category}
            cells = [
                text for figure in ("overlap", "layer shift") for text in _estimate(of[figure])
            ]
            floor = _figure(of.get("noise floor", {}).get("value"))
            body.append((category, *cells, floor, _interval(of.get("beyond floor", {}), "")))
        head = ("", "overlap", "95 % interval", "chance", "shift", "95 % interval", "chance",
                "noise floor", "beyond it")  # fmt: skip
        section.tables.append(Table((name, *head[1:]), body))
        section.statements += _moved(name, group)
        layers = _rows(run, f"alteration_layers_{family}")
        if whole := [row for row in layers if row["category"] == "all"]:
            section.pictures.append(
                Picture(
                    f"{family}-change-by-layer",
                    figures.change_by_layer(whole, f"{name} gained and lost by tuning"),
                    "Mean number that an instruction's set gains and loses in each layer, with "
                    "95 % intervals over instructions.",
                )
            )
        tested = _rows(run, f"alteration_components_{family}")
        if tested:
            found = [row for row in tested if row["q"] <= _ALPHA]
            gained = sum(row["gained"] > row["lost"] for row in found)
            section.texts.append(
                f"{name}: of {len(tested):,} components whose membership changed in six "
                f"instructions or more, {gained:,} were gained and {len(found) - gained:,} lost "
                f"at a false discovery rate of {_ALPHA:.0%} (exact sign test)."
            )
        section.tables += _frequency_tables(run, family)
    return section


def _moved(name: str, group: list[dict[str, Any]]) -> list[str]:
    beyond = [row for row in group if row["figure"] == "beyond floor"]
    moved = [
        row["category"] for row in beyond if (row["low"] or 0) > 0 and row["category"] != "all"
    ]
    if not beyond:
        return []
    if not moved:
        return [f"Tuning moved the {name} of no category beyond the noise floor."]
    return [f"Tuning moved the {name} of {', '.join(moved)} beyond the noise floor."]


def _frequency_tables(run: Run, family: str) -> list[Table]:
    """The layer in which each category's mean frequency changed most."""
    rows = _rows(run, f"frequency_layers_{family}")
    body = []
    for category in dict.fromkeys(row["category"] for row in rows):
        of = [row for row in rows if row["category"] == category]
        top = max(of, key=lambda row: abs(row["value"] or 0.0))
        place = f"{top['layer']} {top['kind']}"
        body.append((category, place, _figure(top["value"], 5), _interval(top, "", 5)))
    symbol = "f" if family == "experts" else "p"
    head = (f"change of {symbol}", "largest in layer", "mean there", "95 % interval")
    text = (
        f"{symbol}: frequency, over all components of a layer. The layer was picked for its "
        "change, so that the interval is for it alone."
    )
    return [Table(head, body, text)] if body else []


def _trajectory(run: Run, rows: list[dict[str, Any]]) -> Section:
    section = Section("Along training")
    section.texts.append(
        "Overlap of an instruction's sets at each checkpoint with those at the first, and at the "
        "one before: mean Jaccard. Chance: random sets of the same sizes."
    )
    section.texts += _warnings(run, "trajectory_warnings")
    for family, name, group in _cells(rows, "family"):
        first = [row for row in group if row["against"] == "first"]
        section.pictures.append(
            Picture(
                f"{family}-trajectory",
                figures.overlap_by_step(first, f"{name} along training"),
                "Bands: 95 % intervals over instructions.",
            )
        )
        body = []
        for row in group:
            if (row["category"], row["figure"]) == ("all", "overlap"):
                at = (row["step"], row["against"], "all")
                floor = [
                    r["value"] for r in group
                    if (r["step"], r["against"], r["category"]) == at
                    and r["figure"] == "noise floor"
                ]  # fmt: skip
                body.append((f"{row['run']}, against the {row['against']}", *_estimate(row),
                             _figure(floor[0] if floor else None)))  # fmt: skip
        head = (name, "overlap", "95 % interval", "chance", "noise floor")
        section.tables.append(Table(head, body))
    return section


def _ablation(_: Run, rows: list[dict[str, Any]]) -> Section:
    section, draws = Section("Ablation"), rows[0]["random_sets"]
    section.texts.append(
        "Loss on reference answers, nats per token, with a set silenced, minus that of the whole "
        f"model, over {max(row['instructions'] for row in rows)} instructions. Random: mean effect "
        f"of {draws} random sets with as many components of every layer and like frequency; so few "
        f"bound every p at {1 / (1 + draws):.2g}. Beyond random: the difference of the two. "
        f"Measured by the {rows[0]['engine']} engine."
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


def _interval(row: dict[str, Any], prefix: str, digits: int = 3) -> str:
    low, high = row.get(f"{prefix}low"), row.get(f"{prefix}high")
    return "-" if low is None else f"{_figure(low, digits)} to {_figure(high, digits)}"


def _figure(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
