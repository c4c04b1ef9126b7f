"""The section of the page about components: general, unique, enriched, specific."""

from typing import Any

from sparcom.analysis.stats.estimate import Estimate
from sparcom.report.format import estimate_texts, expected, number
from sparcom.report.section import Section, Table, outdated
from sparcom.report.tables import Row, Tables, distinct

_TOP = 3  # components of each category in the table


def component_sections(tables: Tables) -> list[Section]:
    """One section for the neurons and one for the experts."""
    families = distinct(tables.rows("component_counts"), "family")
    return [_section(tables, family) for family in families]


def _section(tables: Tables, family: str) -> Section:
    title = f"General, unique and specific {family}"
    options, counts = tables.row("analysis_options"), tables.rows("component_counts", family=family)
    if "least_difference" not in options:
        return outdated(title, "report")
    categories = distinct(tables.rows("categories"), "category")
    section = Section(title, [_general_text(options), _test_text(options)])
    section.tables.append(_count_table(counts, categories))
    section.statements.append(general_statement(family, counts, options))
    tests = [row["value"] for row in counts if row["figure"] == "tests"]
    if tests:
        section.statements.append(tested_statement(family, counts, categories, options, tests[0]))
        section.tables.append(_effective_table(counts, categories))
        section.tables += _top_tables(tables, family, categories)
    section.tables += _confirmations(tables.rows(f"confirmations_{family}", category="all"))
    section.tables += _conditional(counts)
    return section


def _general_text(options: Row) -> str:
    return (
        f"General: in the sets of at least {options['high']:.0%} of every category's instructions. "
        f"Unique: of at least {options['high']:.0%} of one category's and at most "
        f"{options['low']:.0%} of every other's. Always on: fires on at least "
        f"{options['always_on']:.0%} of the tokens "
        f"{'of plain text' if options['baseline'] else 'of every category'}. By chance: the mean "
        "number if clusters exchange their categories among those of like length and source."
    )


def _test_text(options: Row) -> str:
    return (
        "Enriched (depleted): a category fires the component on a larger (smaller) share c / T of "
        "its tokens than the others do, among instructions of like length and source, with "
        f"clusters as the unit, at a false discovery rate of {options['alpha']:.0%} over all "
        "components and categories. Specific: enriched, and above every other category by more "
        f"than {options['least_difference']:g}."
    )


def _value(counts: list[Row], figure: str, category: str = "all") -> Row | None:
    return next(
        (row for row in counts if (row["figure"], row["category"]) == (figure, category)), None
    )


def _row(counts: list[Row], figure: str, category: str = "all") -> Row:
    """The row of a figure that every analysis has."""
    return next(row for row in counts if (row["figure"], row["category"]) == (figure, category))


def _count(row: Row | None) -> str:
    """A number of discoveries; what is not known is undetermined."""
    if row is None:
        return "-"
    return "undetermined" if row["value"] is None else f"{row['value']:,.0f}"


def _count_table(counts: list[Row], categories: list[str]) -> Table:
    tested = any(row["figure"] == "enriched" for row in counts)
    head = ["category", "unique", "by chance"]
    head += ["enriched", "depleted", "specific"] if tested else []
    lape = any(row["figure"] == "LAPE rule" for row in counts)
    body = []
    for name in categories:
        unique = _row(counts, "unique", name)
        row = [name, _count(unique), _chance(unique)]
        if tested:
            row += [_count(_value(counts, f, name)) for f in ("enriched", "depleted", "specific")]
        body.append([*row, _count(_value(counts, "LAPE rule", name))] if lape else row)
    if not lape:
        return Table(head, body)
    text = (
        "The LAPE rule selects the components whose firing has the lowest entropy over "
        "categories; as a rule it always selects its fraction, whatever chance would give."
    )
    return Table([*head, "LAPE rule"], body, text)


def _chance(row: Row) -> str:
    return "undetermined" if row["chance"] is None else expected(row["chance"])


def general_statement(family: str, counts: list[Row], options: Row) -> str:
    general, random, both = (
        _row(counts, figure)
        for figure in ("general", "general, random sets", "general and always on")
    )
    unique = [row for row in counts if row["figure"] == "unique"]
    where = "plain text" if options["baseline"] else "every category"
    known = [row["chance"] for row in unique if row["chance"] is not None]
    chance = expected(sum(known)) if known else "undetermined"
    return (
        f"{general['value']:,.0f} {family} are general, {both['value']:,.0f} of them "
        f"always on (in {where}); {_chance(general)} are under permuted clusters, and "
        f"{_chance(random)} in random sets. {sum(row['value'] for row in unique):,.0f} are unique "
        f"to a category (under permuted clusters: {chance})."
    )


def tested_statement(
    family: str, counts: list[Row], categories: list[str], options: Row, tests: float
) -> str:
    def total(figure: str) -> int:
        rows = [_value(counts, figure, name) for name in categories]
        return int(sum(row["value"] or 0 for row in rows if row is not None))

    few = [
        f"{name} ({_count(_value(counts, 'clusters', name))} clusters)"
        for name in categories
        if (_value(counts, "enriched", name) or {"value": 0})["value"] is None
    ]
    if not tests:
        return f"Undetermined: too few clusters to test {family}: {', '.join(few)}."
    enriched, depleted, specific = (total(name) for name in ("enriched", "depleted", "specific"))
    text = (
        f"Of {tests:,.0f} pairs of a category with one of the {family}, {enriched:,} are enriched "
        f"and {depleted:,} depleted; up to {options['alpha']:.0%} of these are expected to be "
        f"false, {expected(options['alpha'] * (enriched + depleted))}. {specific:,} are specific: "
        f"above every other category by more than {options['least_difference']:g}"
    )
    false = f" (false ones expected: at most {expected(options['alpha'] * specific)})"
    text += f"{false if specific else ''}."
    return f"{text} Undetermined: {', '.join(few)}." if few else text


def _effective_table(counts: list[Row], categories: list[str]) -> Table:
    """How much the tests of each category rest on."""
    body = []
    for name in categories:
        apart = [
            row["figure"].removeprefix("not compared with ")
            for row in counts
            if row["category"] == name and row["figure"].startswith("not compared with ")
        ]
        effective = _value(counts, "effective instructions", name)
        body.append(
            (
                name,
                number(None if effective is None else effective["value"], 1),
                _count(_value(counts, "clusters", name)),
                _count(_value(counts, "clusters of the others", name)),
                ", ".join(apart) or "-",
            )
        )
    head = ("tests of", "effective instructions", "clusters", "of the others", "not compared with")
    text = (
        "What the tests rest on. Effective: so many instructions, compared with very many of other "
        "categories and of like length and source, would tell as much. Clusters: those that take "
        "part. Not compared: too few clusters of like length and source; specific then asks only "
        "for the plain difference from that category."
    )
    return Table(head, body, text)


def _top_tables(tables: Tables, family: str, categories: list[str]) -> list[Table]:
    """Of each category the discoveries furthest above every other category."""
    rows = []
    for category in categories:
        found = tables.rows(f"enriched_{family}", category=category)
        of = [row for row in found if row["difference"] > 0 and row["gap"] is not None]
        for row in sorted(of, key=lambda row: -row["gap"])[:_TOP]:
            others = {name: row[f"frequency_{name}"] or 0.0 for name in categories
                      if name != category}  # fmt: skip
            nearest = max(others, key=lambda name: others[name]) if others else None
            rows.append(
                (
                    category,
                    component_name(row),
                    f"{row[f'frequency_{category}']:.2f}",
                    "-" if nearest is None else f"{others[nearest]:.2f} ({nearest})",
                    f"{row['difference']:+.2f}",
                    f"{row['low']:+.2f} to {row['high']:+.2f}",
                    f"{row['q']:.1e}",
                    "-" if row["gap_q"] is None else f"{row['gap_q']:.2g}",
                    f"{row['prevalence']:.0%}",
                )
            )
    if not rows:
        return []
    head = ("enriched in", "component", "c / T there", "highest elsewhere", "difference",
            "95 % interval", "q", "q of specific", "held by")  # fmt: skip
    text = (
        "Of the enriched components with the largest differences, those with the largest least "
        "difference from any other category, length and source held fixed. c / T: share of all "
        "counted tokens of a category on which it fires, nothing held fixed, so that another "
        "category may exceed it. Difference: "
        "what was tested, against the rest among instructions of like length and source; its "
        "interval is adjusted for having been selected. q of specific: at or under the false "
        "discovery rate it is specific. Held by: share of the category's sets."
    )
    return [Table(head, rows, text)]


def component_name(row: dict[str, Any]) -> str:
    """`(12, 803)`: layer and unit, or layer, expert and unit; an expert is (layer, expert).

    >>> component_name({"layer": 3, "kind": "shared", "expert": None, "unit": 7})
    '(3, 7) shared'
    """
    parts = [row[name] for name in ("layer", "expert", "unit") if row[name] is not None]
    name = f"({', '.join(map(str, parts))})"
    return f"{name} shared" if row["kind"] == "shared" else name


def _confirmations(rows: list[Row]) -> list[Table]:
    body = []
    for row in rows:
        name = f"found in {row['found_in']}, tested in {row['tested_in']}"
        if row["confirmed"] is None:
            body.append(
                (name, f"{row['discovered']:,}", "undetermined: too few clusters", "-", "-")
            )
            continue
        share = "none found" if row["share"] is None else f"{row['share']:.0%}"
        body.append((name, f"{row['discovered']:,}", f"{row['confirmed']:,}", share,
                     f"{row['chance']:.1%}"))  # fmt: skip
    text = (
        "Enriched components of one source that are enriched in another too, at the same false "
        "discovery rate over those found. By chance: the share among all that were not found."
    )
    head = ("enriched components", "found", "confirmed", "share", "by chance")
    return [Table(head, body, text)] if body else []


def _conditional(counts: list[Row]) -> list[Table]:
    rows = [
        (row["category"],
         *estimate_texts(Estimate(row["value"], row["low"], row["high"]))[:2])
        for row in counts
        if row["figure"] == "conditional frequency of ISNs"
    ]  # fmt: skip
    text = (
        "Conditional frequency: a routed neuron fires in c of the r tokens that chose its expert. "
        "c / r: mean over a category's ISNs of routed experts, each weighed by its prevalence. "
        "Sets hold neurons because they fire often, so that no chance level is given."
    )
    head = ("routed ISNs of", "c / r", "95 % interval")
    return [Table(head, rows, text)] if rows else []
