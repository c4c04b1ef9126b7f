"""The section of the page about change by tuning, which `sparcom compare` has stored."""

from sparcom.analysis.stats.estimate import estimate_of
from sparcom.report import figures
from sparcom.report.format import (
    estimate_texts,
    expected,
    interval,
    number,
    p_value,
    with_interval,
)
from sparcom.report.section import FAMILY_NAMES, Picture, Section, Table, outdated
from sparcom.report.tables import Row, Tables, distinct, gaps

_ALPHA = 0.05
_MORE = "more than the others"


def alteration_sections(tables: Tables) -> list[Section]:
    """A section if the run was compared with its base."""
    rows = tables.rows("alteration_summary")
    if not rows:
        return []
    title = f"Change by tuning, against {rows[0]['base']}"
    if _MORE not in distinct(rows, "figure"):
        return [outdated(title, "compare")]
    section = Section(title)
    section.texts.append(
        "Overlap of an instruction's sets in the base and in this model: mean Jaccard. Chance: "
        "random sets of the same sizes. Intervals are over clusters. More than the others: how "
        "much further the sets of a category moved than those of other categories of like length "
        "and source, with the effective number of instructions behind it; q is corrected over the "
        "categories (Benjamini-Hochberg). The shift is the share of a set that would have to move "
        "to another layer; its chance has the two runs of clusters swapped at random. Noise floor: "
        "the overlap of one model with itself in another dtype or engine; beyond it: how much less "
        "these two overlap, p corrected over the categories (max statistic)."
    )
    section.texts += [f"Note: {row['warning']}." for row in tables.rows("alteration_warnings")]
    for family in distinct(rows, "family"):
        _add_family(section, tables, family)
    return [section]


def _add_family(section: Section, tables: Tables, family: str) -> None:
    rows = tables.rows("alteration_summary", family=family)
    name = FAMILY_NAMES[family]
    section.tables.append(_summary_table(name, rows))
    section.statements += _moved(name, rows) + _more(name, rows)
    if layers := tables.rows(f"alteration_layers_{family}", category="all"):
        section.pictures.append(
            Picture(
                name=f"{family}-change-by-layer",
                figure=figures.change_by_layer(layers, f"{name} gained and lost by tuning"),
                caption="Mean number that an instruction's set gains and loses in each layer, with "
                "95 % intervals over clusters, each for its layer alone."
                + gaps(layers, tables.layers),
            )
        )
    if tested := tables.rows(f"alteration_components_{family}"):
        section.texts.append(_component_text(name, tested))
    changes = tables.rows(f"frequency_layers_{family}")
    section.texts += _frequency_text(family, changes)
    section.tables += _frequency_tables(family, changes)


def _component_text(name: str, tested: list[Row]) -> str:
    found = [row for row in tested if row["q"] <= _ALPHA]
    gained = sum(row["gained"] > row["lost"] for row in found)
    floor = tested[0]["floor_gained"] is not None
    against = "more than the noise floor moves them" if floor else "against no change"
    return (
        f"{name}: of {len(tested):,} components with a net change in six clusters or more, "
        f"{gained:,} were gained and {len(found) - gained:,} lost {against}, at a false discovery "
        f"rate of {_ALPHA:.0%} (exact sign test over clusters): {expected(_ALPHA * len(found))} "
        "of them may be by chance."
    )


def _summary_table(name: str, rows: list[Row]) -> Table:
    floor = any(row["figure"] == "noise floor" for row in rows)
    body = []
    for category in distinct(rows, "category"):
        of = {row["figure"]: row for row in rows if row["category"] == category}
        overlap, shift = (
            estimate_texts(estimate_of(of[figure]), none="-")
            for figure in ("overlap", "layer shift")
        )
        more = of.get(_MORE, {})
        cells = [
            category, f"{of['clusters']['value']:.0f}", *overlap[:3],
            number(more.get("value"), signed=True),
            interval(more.get("low"), more.get("high"), signed=True), p_value(more.get("p")),
            number(of.get("effective instructions", {}).get("value"), 1),
            shift[0], shift[2], shift[4],
        ]  # fmt: skip
        if floor:
            beyond = of["beyond noise floor"]
            cells += [
                number(of["noise floor"]["value"]), interval(beyond["low"], beyond["high"]),
                p_value(beyond["p"]),
            ]  # fmt: skip
        body.append(cells)
    head = [name, "clusters", "overlap", "95 % interval", "chance", _MORE, "95 % interval", "q",
            "effective", "shift", "chance", "p"]  # fmt: skip
    return Table([*head, "noise floor", "beyond it", "p"] if floor else head, body)


def _split(rows: list[Row], figure: str) -> tuple[list[Row], list[Row], int]:
    """(found, undetermined, tested) of the categories' rows of a figure."""
    of = [row for row in rows if row["figure"] == figure and row["category"] != "all"]
    found = [row for row in of if row["p"] is not None and row["p"] <= _ALPHA]
    unknown = [row for row in of if row["p"] is None]
    return found, unknown, len(of) - len(unknown)


def _undetermined(unknown: list[Row]) -> str:
    if not unknown:
        return ""
    names = ", ".join(row["category"] for row in unknown)
    return f" Undetermined, too few clusters: {names}."


def _moved(name: str, rows: list[Row]) -> list[str]:
    """Which categories moved beyond the noise floor, if one was given."""
    found, unknown, tested = _split(rows, "beyond noise floor")
    if not tested:
        return [f"{name}, beyond the noise floor:{_undetermined(unknown)}"] if unknown else []
    what = ", ".join(row["category"] for row in found) or "no category"
    chance = f"by chance one or more in {_ALPHA:.0%} of comparisons"
    return [
        f"Tuning moved the {name} of {what} beyond the noise floor ({len(found)} of {tested} "
        f"categories; {chance}).{_undetermined(unknown)}"
    ]


def _more(name: str, rows: list[Row]) -> list[str]:
    """Which categories moved more, or less, than the others of like length and source."""
    found, unknown, tested = _split(rows, _MORE)
    if not tested:
        return []
    parts = [
        f"{row['category']} {'more' if row['value'] > 0 else 'less'} than the others, by "
        f"{with_interval(estimate_of(row))}"
        for row in sorted(found, key=lambda row: -row["value"])
    ]
    what = "; ".join(parts) or "no category more or less than the others"
    return [
        f"With length and source held fixed, tuning moved the {name} of {what} ({len(found)} of "
        f"{tested} categories, at a false discovery rate of {_ALPHA:.0%}).{_undetermined(unknown)}"
    ]


def _frequency_tables(family: str, rows: list[Row]) -> list[Table]:
    """The layer in which each category's mean frequency changed most."""
    floor = any(row.get("q") is not None for row in rows)
    body = []
    for category in distinct(rows, "category"):
        of = [row for row in rows if row["category"] == category]
        top = max(of, key=lambda row: abs(row["value"] or 0.0))
        layer = f"{top['layer']} {top['kind']}"
        cells = [category, layer, number(top["value"], 5), interval(top["low"], top["high"], 5)]
        if floor:
            cells += [number(top["floor"], 5), p_value(top["q"])]
        body.append(cells)
    symbol = "f" if family == "experts" else "p"
    head = [f"change of {symbol}", "largest in layer", "mean there", "95 % interval"]
    text = (
        f"{symbol}: frequency, over all components of a layer. The layer was picked for its "
        "change, so that the interval is for it alone."
    )
    if floor:
        head += ["noise floor", "q"]
        text += (
            " Noise floor: the same mean change of one model in another dtype or engine. q: that "
            "the change is larger than the noise floor's in either direction, corrected over the "
            "layers of all categories (Benjamini-Hochberg); in the row all, over its own layers."
        )
    return [Table(head, body, text)] if body else []


def _frequency_text(family: str, rows: list[Row]) -> list[str]:
    """In how many layers the mean frequency changed by more than the noise floor."""
    tested = [row for row in rows if row["category"] == "all" and row.get("q") is not None]
    if not tested:
        return []
    found = sum(row["q"] <= _ALPHA for row in tested)
    symbol = "f" if family == "experts" else "p"
    return [
        f"Over all instructions, the mean {symbol} of {FAMILY_NAMES[family]} changed by more than "
        f"the noise floor in {found} of {len(tested)} sites, at a false discovery rate of "
        f"{_ALPHA:.0%}."
    ]
