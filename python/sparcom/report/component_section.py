"""The section of the page about components: general, unique, specific, and tested elsewhere."""

import numpy as np

from sparcom.analysis.components.conditional import ConditionalFrequency
from sparcom.analysis.components.family_components import FamilyComponents
from sparcom.analysis.components.specificity import SpecificityTest
from sparcom.analysis.stats.estimate import wilson
from sparcom.analysis.stats.hypergeometric import SMALLEST_P
from sparcom.components import ComponentSpace
from sparcom.report.section import Section, Table, cells, expected


def component_section(family: str, result: FamilyComponents, space: ComponentSpace) -> Section:
    general = result.generality
    what = "neurons" if family == "neurons" else "experts"
    section = Section(f"General, unique and specific {what}")
    section.texts.append(
        f"General: in the sets of at least {general.high:.0%} of every category's instructions. "
        f"Unique: of at least {general.high:.0%} of one category's and at most {general.low:.0%} "
        f"of every other's. Specific: held more often by a category than by the others, tested "
        f"among instructions of like length and source, at a false discovery rate of "
        f"{result.test.alpha:.0%} over {result.test.p.size:,} tests; unadjusted, the same test "
        "ignores length and source."
    )
    section.tables.append(_count_table(result))
    section.statements.append(_count_statement(what, result))
    if strongest := _strongest_statement(result, space, family):
        section.statements.append(strongest)
    section.tables.append(_top_specific(result, space, family))
    if result.confirmations:
        section.tables.append(_confirmations(result))
    if result.conditional is not None:
        section.tables.append(_conditional_table(result.conditional))
    return section


def _count_table(result: FamilyComponents) -> Table:
    general, specific, plain = result.generality, result.specific_counts(), result.plain
    unique, counts = general.unique_counts(), result.unique_intervals
    head = ["category", "unique", "95 % interval", "by chance at most", "specific",
            "specific, unadjusted"]  # fmt: skip
    rows = []
    for at, name in enumerate(general.categories):
        chance = expected(general.unique_chance[at])
        bounds = "-" if counts is None else "{:,.0f} to {:,.0f}".format(*counts[at])
        found = f"{specific[name]:,}", f"{plain.specific[at].sum():,}"
        rows.append([name, f"{unique[at]:,}", bounds, chance, *found])
        if result.lape is not None:
            rows[-1].append(f"{result.lape.selected[at].sum():,}")
    if result.lape is None:
        return Table(head, rows)
    text = (
        "The LAPE rule selects the components whose firing has the lowest entropy over "
        "categories; as a rule it always selects its fraction, whatever chance would give."
    )
    return Table([*head, "LAPE rule"], rows, text)


def _count_statement(what: str, result: FamilyComponents) -> str:
    general, bounds = result.generality, result.general_interval
    interval = "" if bounds is None else " ({:,.0f} to {:,.0f})".format(*bounds)
    return (
        f"{int(general.general.sum()):,}{interval} {what} are general (random sets: "
        f"{expected(general.general_chance)}), {int(general.unique_counts().sum()):,} unique to a "
        f"category, and {sum(result.specific_counts().values()):,} specific at a false discovery "
        f"rate of {result.test.alpha:.0%}."
    )


def _strongest_statement(result: FamilyComponents, space: ComponentSpace, family: str) -> str:
    """The sentence that the tests are for, about the clearest discovery; empty without any."""
    test = result.test
    at, column = np.nonzero(test.specific)
    if not len(at):
        return ""
    gap = (test.prevalence - test.elsewhere)[at, column]
    first = np.lexsort((-gap, test.q[at, column]))[0]
    at, column = at[first], column[first]
    name = component_name(space, family, int(test.tested[column]))
    inside, share = test.inside[at, column], test.prevalence[at, column]
    low, high = wilson(inside, np.rint(inside / max(share, 1e-12)))
    return (
        f"{'Neuron' if family == 'neurons' else 'Expert'} {name} is {test.categories[at]}-specific "
        f"at q < {test.alpha:g}: in the sets of {share:.0%} ({low:.0%} to {high:.0%}) of its "
        f"instructions and of {test.elsewhere[at, column]:.0%} of the others "
        f"(q {_q(test, at, column)})."
    )


def _q(test: SpecificityTest, at: int, column: int) -> str:
    """q, or that it is below what the smallest p that is told apart gives."""
    sign = "<" if test.p[at, column] <= SMALLEST_P else "="
    return f"{sign} {test.q[at, column]:.1e}"


def _conditional_table(result: ConditionalFrequency) -> Table:
    rows = [
        (name, *cells(item)[:3])
        for name, item in zip(result.categories, result.in_sets, strict=True)
    ]
    text = (
        "Conditional frequency: a routed neuron fires in c of the r tokens that chose its expert. "
        "c / r: mean over a category's ISNs of routed experts, each weighed by its prevalence; "
        "chance: a random neuron of the same experts."
    )
    return Table(("routed ISNs of", "c / r", "95 % interval", "chance level"), rows, text)


def _top_specific(result: FamilyComponents, space: ComponentSpace, family: str) -> Table:
    """The three most specific components of each category."""
    test, rows = result.test, []
    for at, category in enumerate(test.categories):
        found, share = np.flatnonzero(test.specific[at]), test.prevalence[at]
        low, high = wilson(test.inside[at], np.rint(test.inside[at] / np.maximum(share, 1e-12)))
        order = np.lexsort((-(test.prevalence - test.elsewhere)[at, found], test.q[at, found]))
        for column in found[order[:3]]:
            index = int(test.tested[column])
            rows.append(
                (
                    category,
                    component_name(space, family, index),
                    f"{share[column]:.0%}",
                    f"{low[column]:.0%} to {high[column]:.0%}",
                    f"{test.elsewhere[at, column]:.0%}",
                    _q(test, at, column).removeprefix("= "),
                )
            )
    head = ("most specific to", "component", "held there", "95 % interval", "held elsewhere", "q")
    return Table(head, rows)


def component_name(space: ComponentSpace, family: str, index: int) -> str:
    """`(12, 803)`: layer and unit, or layer, expert and unit; an expert is (layer, expert)."""
    if family == "experts":
        at = int(np.searchsorted(space.expert_offsets, index, side="right")) - 1
        return f"({space.sites[at].layer}, {index - int(space.expert_offsets[at])})"
    layer, kind, expert, unit = space.describe_neuron(index)
    place = f"({layer}, {unit})" if expert < 0 else f"({layer}, {expert}, {unit})"
    return place if kind != "shared" else f"{place} shared"


def _confirmations(result: FamilyComponents) -> Table:
    rows = [
        (
            f"found in {c.found_in}, tested in {c.tested_in}",
            f"{int(c.discovered.sum()):,}",
            f"{int(c.confirmed.sum()):,}",
            "none found" if c.share is None else f"{c.share:.0%}",
            "-" if c.share is None else f"{c.low:.0%} to {c.high:.0%}",
            f"{c.chance:.0%}",
        )
        for c in result.confirmations
    ]
    head = ("specific components", "found", "confirmed", "share", "95 % interval", "by chance")
    return Table(head, rows)
