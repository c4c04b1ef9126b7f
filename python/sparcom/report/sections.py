"""What the page of a run says: sentences, tables and figures built from an `Analysis`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure

from sparcom.analysis.analyse import Analysis
from sparcom.analysis.estimate import Estimate
from sparcom.analysis.family_components import FamilyComponents
from sparcom.analysis.family_overlap import FamilyOverlap
from sparcom.components import ComponentSpace
from sparcom.report import figures
from sparcom.store import Run

FAMILY_NAMES = {
    "neurons": "ISNs",
    "dense": "ISNs of dense MLPs",
    "shared": "ISNs of shared experts",
    "routed": "ISNs of routed experts",
    "experts": "ISEs",
}


@dataclass(frozen=True)
class Picture:
    """A figure of the page. name: of its files."""

    name: str
    figure: Figure
    caption: str


@dataclass(frozen=True)
class Table:
    """A table of the page; the first column is text, the others are figures."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Section:
    """One part of the page. statements: its findings, also shown at the page's top."""

    title: str
    texts: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)


def make_sections(run: Run, analysis: Analysis) -> list[Section]:
    """All sections of the page of a run."""
    sections = [_categories(run, analysis)]
    for family, overlap in analysis.overlaps.items():
        sections.append(_overlap(family, overlap))
    for family, components in analysis.components.items():
        sections.append(_components(family, components, run.space))
    return sections


def _categories(run: Run, analysis: Analysis) -> Section:
    """How much of each category was counted, and how large its sets came out."""
    labels = np.asarray(run.labels["category"].to_pylist())
    tokens = run.labels["n_counted"].to_numpy()
    sizes = run.sets.sizes.sum(1) / run.space.neurons
    rows = []
    for name in analysis.categories:
        of = labels == name
        rows.append(
            (
                name,
                f"{of.sum():,}",
                f"{tokens[of].sum():,}",
                f"{np.median(tokens[of]):.0f}",
                f"{sizes[of].mean():.2%}",
                f"{sizes[of].min():.2%} to {sizes[of].max():.2%}",
            )
        )
    head = ("category", "instructions", "counted tokens", "median T", "mean set size", "range")
    text = (
        "A set's size is its share of all neurons. The frequencies of an instruction of T tokens "
        "have T + 1 values, so that a cut falls into a group of ties: short instructions get sets "
        "that are larger than the rule's nominal size."
    )
    return Section("Categories", [text], tables=[Table(head, rows)])


# -- pairs ----------------------------------------------------------------------------------------


def _overlap(family: str, result: FamilyOverlap) -> Section:
    what = FAMILY_NAMES[family]
    section = Section(f"{what}: overlap")
    section.pictures.append(
        Picture(
            f"{family}-categories",
            figures.category_heatmap(result.matrix, f"Overlap of {what} between categories"),
            "Mean Jaccard overlap over all pairs of two different instructions, one of the row's "
            "category and one of the column's. Random sets with the same size in every layer would "
            f"have {_mean(result.chance.mean)}.",
        )
    )
    if result.distributions is not None:
        section.pictures.append(
            Picture(
                f"{family}-same-different",
                figures.same_different(
                    result.distributions, f"Same type against different type, {what}"
                ),
                "Each pair of instructions once. Dashed: the means.",
            )
        )
        section.statements.append(_effect_statement(what, result))
    section.pictures.append(
        Picture(
            f"{family}-layers",
            figures.layer_curves(result.histogram, f"{what} over depth", what),
            "Mean number in an instruction's set, per layer and category, with 95 % intervals over "
            "instructions. Dotted: the same number spread evenly over all components.",
        )
    )
    section.statements.append(_layer_statement(what, result))
    section.tables.append(_pair_table(result))
    return section


def _effect_statement(what: str, result: FamilyOverlap) -> str:
    split, effect = result.distributions, result.effect
    means = f"mean Jaccard {split.same.mean:.3f} against {split.different.mean:.3f}"
    if effect.value is None or effect.value <= 0:
        return f"Instructions of the same type share no more {what} than others: {means}."
    return (
        f"Two instructions of the same type share more {what} than two of different types: "
        f"{means}. The difference is {_show(effect)}; with labels permuted among instructions of "
        f"like length and source it is {_number(effect.chance)} (p {_p(effect)})."
    )


def _layer_statement(what: str, result: FamilyOverlap) -> str:
    histogram = result.histogram
    layers = np.unique(histogram.layers)
    share = histogram.share.mean(0)
    per_layer = np.array([share[histogram.layers == layer].sum() for layer in layers])
    even = np.array([histogram.chance[histogram.layers == layer].sum() for layer in layers])
    top = per_layer.argsort()[::-1][:3]
    named = ", ".join(f"layer {layers[i]} ({per_layer[i]:.0%})" for i in top)
    text = f"Most {what} lie in {named}; an even spread would give {even[top].mean():.0%} each."
    stability = result.pattern.stability
    if stability.value is not None:
        text += (
            f" Categories share {_show(stability, 2)} of that pattern over depth (1: all alike, "
            "0: none)."
        )
    return text


def _pair_table(result: FamilyOverlap) -> Table:
    """The figures behind the statements, each with interval and chance level."""
    rows = [
        ("same minus different type", result.effect),
        ("the same, origins resampled whole", result.effect_by_origin),
        ("the same within like length and source", result.adjusted.effect),
        ("distance between categories' layer shares", result.pattern.between),
        ("stability of the pattern over depth", result.pattern.stability),
    ]
    for part in result.sources:
        pair = part.first if part.first == part.second else f"{part.first} against {part.second}"
        rows.append((f"same minus different type, {pair}", part.effect))
    if result.reliability is not None:
        rows.append(("split-half reliability of the heatmap", result.reliability.matrix))
    head = ("figure", "value", "95 % interval", "chance level", "p")
    return Table(head, [(name, *_cells(item)) for name, item in rows])


# -- components -----------------------------------------------------------------------------------


def _components(family: str, result: FamilyComponents, space: ComponentSpace) -> Section:
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
    unique = general.unique_counts()
    specific, plain = result.specific_counts(), result.plain.specific.sum(1)
    section.tables.append(
        Table(
            ("category", "unique", "by chance at most", "specific", "specific, unadjusted"),
            [
                (
                    name,
                    f"{unique[at]:,}",
                    f"{general.unique_chance[at]:.2g}",
                    f"{specific[name]:,}",
                    f"{plain[at]:,}",
                )
                for at, name in enumerate(general.categories)
            ],
        )
    )
    section.statements.append(
        f"{int(general.general.sum()):,} {what} are general (random sets: "
        f"{general.general_chance:.2g}), {int(unique.sum()):,} unique to a category, and "
        f"{sum(specific.values()):,} specific at a false discovery rate of "
        f"{result.test.alpha:.0%}."
    )
    section.tables.append(_top_specific(result, space, family))
    if result.confirmations:
        section.tables.append(_confirmations(result))
    return section


def _top_specific(result: FamilyComponents, space: ComponentSpace, family: str) -> Table:
    """The three most specific components of each category."""
    test, rows = result.test, []
    for at, category in enumerate(test.categories):
        found = np.flatnonzero(test.specific[at])
        order = np.lexsort((-(test.prevalence - test.elsewhere)[at, found], test.q[at, found]))
        for column in found[order[:3]]:
            index = int(test.tested[column])
            rows.append(
                (
                    category,
                    component_name(space, family, index),
                    f"{test.prevalence[at, column]:.0%}",
                    f"{test.elsewhere[at, column]:.0%}",
                    f"{test.q[at, column]:.1e}",
                )
            )
    return Table(("most specific to", "component", "held there", "held elsewhere", "q"), rows)


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
            f"{c.chance:.0%}",
        )
        for c in result.confirmations
    ]
    return Table(("specific components", "found", "confirmed", "share", "by chance"), rows)


# -- figures as text ------------------------------------------------------------------------------


def _show(item: Estimate, digits: int = 3) -> str:
    if item.low is None:
        return _number(item.value, digits)
    return f"{item.value:.{digits}f} ({item.low:.{digits}f} to {item.high:.{digits}f})"


def _cells(item: Estimate) -> tuple[str, str, str, str]:
    interval = "-" if item.low is None else f"{item.low:.3f} to {item.high:.3f}"
    chance = "-" if item.chance is None else _number(item.chance)
    return _number(item.value), interval, chance, _p(item)


def _number(value: float | None, digits: int = 3) -> str:
    return "undetermined" if value is None else f"{value:.{digits}f}"


def _p(item: Estimate) -> str:
    return "-" if item.p is None else f"{item.p:.2g}"


def _mean(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    return _number(float(known.mean()) if known.size else None)
