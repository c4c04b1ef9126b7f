"""The section of the page about change by tuning, which `sparcom compare` has stored."""

from sparcom.analysis.stats.estimate import estimate_of
from sparcom.report import figures
from sparcom.report.format import estimate_texts, interval, number
from sparcom.report.section import FAMILY_NAMES, Picture, Section, Table, outdated
from sparcom.report.tables import Row, Tables, distinct

_ALPHA = 0.05
_FIGURES = {"overlap", "layer shift", "noise floor", "beyond noise floor"}


def alteration_sections(tables: Tables) -> list[Section]:
    """A section if the run was compared with its base."""
    rows = tables.rows("alteration_summary")
    if not rows:
        return []
    title = f"Change by tuning, against {rows[0]['base']}"
    if not set(distinct(rows, "figure")) <= _FIGURES:
        return [outdated(title, "compare")]
    section = Section(title)
    section.texts.append(
        "Overlap of an instruction's sets in the base and in this model: mean Jaccard. Chance: "
        "random sets of the same sizes. The shift is the share of a set that would have to move to "
        "another layer; its chance has the two runs swapped at random. Noise floor: the "
        "overlap of one model with itself in another dtype or engine; beyond it: how much less "
        "these two overlap."
    )
    section.texts += [f"Note: {row['warning']}." for row in tables.rows("alteration_warnings")]
    for family in distinct(rows, "family"):
        _add_family(section, tables, family)
    return [section]


def _add_family(section: Section, tables: Tables, family: str) -> None:
    rows = tables.rows("alteration_summary", family=family)
    name = FAMILY_NAMES[family]
    section.tables.append(_summary_table(name, rows))
    section.statements += _moved(name, rows)
    if layers := tables.rows(f"alteration_layers_{family}", category="all"):
        section.pictures.append(
            Picture(
                name=f"{family}-change-by-layer",
                figure=figures.change_by_layer(layers, f"{name} gained and lost by tuning"),
                caption="Mean number that an instruction's set gains and loses in each layer, with "
                "95 % intervals over instructions.",
            )
        )
    if tested := tables.rows(f"alteration_components_{family}"):
        found = [row for row in tested if row["q"] <= _ALPHA]
        gained = sum(row["gained"] > row["lost"] for row in found)
        section.texts.append(
            f"{name}: of {len(tested):,} components whose membership changed in six "
            f"instructions or more, {gained:,} were gained and {len(found) - gained:,} lost "
            f"at a false discovery rate of {_ALPHA:.0%} (exact sign test)."
        )
    section.tables += _frequency_tables(family, tables.rows(f"frequency_layers_{family}"))


def _summary_table(name: str, rows: list[Row]) -> Table:
    body = []
    for category in distinct(rows, "category"):
        of = {row["figure"]: row for row in rows if row["category"] == category}
        texts = [
            text
            for figure in ("overlap", "layer shift")
            for text in estimate_texts(estimate_of(of[figure]), none="-")[:3]
        ]
        beyond = of.get("beyond noise floor", {})
        body.append(
            (category, *texts, number(of.get("noise floor", {}).get("value")),
             interval(beyond.get("low"), beyond.get("high")))
        )  # fmt: skip
    head = (name, "overlap", "95 % interval", "chance", "shift", "95 % interval", "chance",
            "noise floor", "beyond it")  # fmt: skip
    return Table(head, body)


def _moved(name: str, rows: list[Row]) -> list[str]:
    beyond = [row for row in rows if row["figure"] == "beyond noise floor"]
    moved = [
        row["category"] for row in beyond if (row["low"] or 0) > 0 and row["category"] != "all"
    ]
    if not beyond:
        return []
    if not moved:
        return [f"Tuning moved the {name} of no category beyond the noise floor."]
    return [f"Tuning moved the {name} of {', '.join(moved)} beyond the noise floor."]


def _frequency_tables(family: str, rows: list[Row]) -> list[Table]:
    """The layer in which each category's mean frequency changed most."""
    body = []
    for category in distinct(rows, "category"):
        of = [row for row in rows if row["category"] == category]
        top = max(of, key=lambda row: abs(row["value"] or 0.0))
        layer = f"{top['layer']} {top['kind']}"
        body.append(
            (category, layer, number(top["value"], 5), interval(top["low"], top["high"], 5))
        )
    symbol = "f" if family == "experts" else "p"
    head = (f"change of {symbol}", "largest in layer", "mean there", "95 % interval")
    text = (
        f"{symbol}: frequency, over all components of a layer. The layer was picked for its "
        "change, so that the interval is for it alone."
    )
    return [Table(head, body, text)] if body else []
