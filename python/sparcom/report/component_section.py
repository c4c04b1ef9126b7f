"""The section of the page about components: general, unique, specific, and tested elsewhere."""

from typing import Any

from sparcom.analysis.stats.estimate import Estimate
from sparcom.analysis.stats.hypergeometric import SMALLEST_P
from sparcom.report.format import estimate_texts, expected
from sparcom.report.section import Section, Table
from sparcom.report.tables import Row, Tables, distinct

_TOP = 3  # components of each category in the table


def component_sections(tables: Tables) -> list[Section]:
    """One section for the neurons and one for the experts."""
    families = distinct(tables.rows("component_counts"), "family")
    return [_section(tables, family) for family in families]


def _section(tables: Tables, family: str) -> Section:
    options = tables.row("analysis_options")
    counts = tables.rows("component_counts", family=family)
    (tests,) = _values(counts, "tests")
    section = Section(f"General, unique and specific {family}")
    section.texts.append(
        f"General: in the sets of at least {options['high']:.0%} of every category's instructions. "
        f"Unique: of at least {options['high']:.0%} of one category's and at most "
        f"{options['low']:.0%} of every other's. Specific: held more often by a category than by "
        "the others, tested among instructions of like length and source, at a false discovery "
        f"rate of {options['alpha']:.0%} over {tests:,.0f} tests; unadjusted, the same test "
        "ignores length and source."
    )
    found = tables.rows(f"specific_{family}")
    section.tables.append(_count_table(counts))
    section.statements.append(_count_statement(family, counts, options["alpha"]))
    if found:
        section.statements.append(_strongest_statement(family, found, options["alpha"]))
    section.tables.append(_top_specific(found, distinct(tables.rows("categories"), "category")))
    section.tables += _confirmations(tables.rows(f"confirmations_{family}", category="all"))
    section.tables += _conditional(counts)
    return section


def _values(counts: list[Row], figure: str) -> list[float]:
    """The values of a figure, category by category."""
    return [row["value"] for row in counts if row["figure"] == figure]


def _count_table(counts: list[Row]) -> Table:
    head = ["category", "unique", "95 % interval", "by chance at most", "specific",
            "specific, unadjusted"]  # fmt: skip
    rows = []
    for unique in (row for row in counts if row["figure"] == "unique"):
        of = {row["figure"]: row for row in counts if row["category"] == unique["category"]}
        found = (of[name]["value"] for name in ("specific", "specific, unadjusted"))
        rows.append(
            [unique["category"], f"{unique['value']:,.0f}", _bounds(unique),
             expected(unique["chance"]), *(f"{value:,.0f}" for value in found)]
        )  # fmt: skip
        if "LAPE rule" in of:
            rows[-1].append(f"{of['LAPE rule']['value']:,.0f}")
    if not _values(counts, "LAPE rule"):
        return Table(head, rows)
    text = (
        "The LAPE rule selects the components whose firing has the lowest entropy over "
        "categories; as a rule it always selects its fraction, whatever chance would give."
    )
    return Table([*head, "LAPE rule"], rows, text)


def _bounds(row: Row) -> str:
    """The interval of a count."""
    return "-" if row["low"] is None else f"{row['low']:,.0f} to {row['high']:,.0f}"


def _count_statement(family: str, counts: list[Row], alpha: float) -> str:
    (general,) = (row for row in counts if row["figure"] == "general")
    interval = "" if general["low"] is None else f" ({_bounds(general)})"
    return (
        f"{general['value']:,.0f}{interval} {family} are general (random sets: "
        f"{expected(general['chance'])}), {sum(_values(counts, 'unique')):,.0f} unique to a "
        f"category, and {sum(_values(counts, 'specific')):,.0f} specific at a false discovery rate "
        f"of {alpha:.0%}."
    )


def _strength(row: Row) -> tuple[float, float]:
    """Sorts discoveries: the smallest q first, and among equals the largest difference."""
    return row["q"], -(row["prevalence"] - row["elsewhere"])


def _strongest_statement(family: str, found: list[Row], alpha: float) -> str:
    """The sentence that the tests are for, about the clearest discovery."""
    row = min(found, key=_strength)
    sign = "<" if row["p"] <= SMALLEST_P else "="
    return (
        f"{'Neuron' if family == 'neurons' else 'Expert'} {component_name(row)} is "
        f"{row['category']}-specific at q < {alpha:g}: in the sets of {row['prevalence']:.0%} "
        f"({_share_bounds(row, 'prevalence_')}) of its instructions and of {row['elsewhere']:.0%} "
        f"of the others (q {sign} {row['q']:.1e})."
    )


def _share_bounds(row: Row, prefix: str = "") -> str:
    """The interval of a share, in per cent."""
    low, high = row[f"{prefix}low"], row[f"{prefix}high"]
    return "-" if low is None else f"{low:.0%} to {high:.0%}"


def _top_specific(found: list[Row], categories: list[str]) -> Table:
    """The most specific components of each category."""
    rows = []
    for category in categories:
        of = sorted((row for row in found if row["category"] == category), key=_strength)
        rows += [
            (
                category,
                component_name(row),
                f"{row['prevalence']:.0%}",
                _share_bounds(row, "prevalence_"),
                f"{row['elsewhere']:.0%}",
                f"{'< ' if row['p'] <= SMALLEST_P else ''}{row['q']:.1e}",
            )
            for row in of[:_TOP]
        ]
    head = ("most specific to", "component", "held there", "95 % interval", "held elsewhere", "q")
    return Table(head, rows)


def component_name(row: dict[str, Any]) -> str:
    """`(12, 803)`: layer and unit, or layer, expert and unit; an expert is (layer, expert).

    >>> component_name({"layer": 3, "kind": "shared", "expert": None, "unit": 7})
    '(3, 7) shared'
    """
    parts = [row[name] for name in ("layer", "expert", "unit") if row[name] is not None]
    name = f"({', '.join(map(str, parts))})"
    return f"{name} shared" if row["kind"] == "shared" else name


def _confirmations(rows: list[Row]) -> list[Table]:
    body = [
        (
            f"found in {row['found_in']}, tested in {row['tested_in']}",
            f"{row['discovered']:,}",
            f"{row['confirmed']:,}",
            "none found" if row["share"] is None else f"{row['share']:.0%}",
            _share_bounds(row),
            f"{row['chance']:.0%}",
        )
        for row in rows
    ]
    head = ("specific components", "found", "confirmed", "share", "95 % interval", "by chance")
    return [Table(head, body)] if body else []


def _conditional(counts: list[Row]) -> list[Table]:
    rows = [
        (row["category"],
         *estimate_texts(Estimate(row["value"], row["low"], row["high"], row["chance"]))[:3])
        for row in counts
        if row["figure"] == "conditional frequency of ISNs"
    ]  # fmt: skip
    text = (
        "Conditional frequency: a routed neuron fires in c of the r tokens that chose its expert. "
        "c / r: mean over a category's ISNs of routed experts, each weighed by its prevalence; "
        "chance: a random neuron of the same experts."
    )
    head = ("routed ISNs of", "c / r", "95 % interval", "chance level")
    return [Table(head, rows, text)] if rows else []
