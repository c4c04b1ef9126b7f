"""The section of the page about pairs of sets: overlap, depth, confounders, reliability."""

import numpy as np

from sparcom.analysis.overlap.family_overlap import FamilyOverlap
from sparcom.analysis.stats.reliability import Reliability
from sparcom.report import figures
from sparcom.report.section import (
    FAMILY_NAMES,
    Picture,
    Section,
    Table,
    cells,
    number,
    p_value,
    show,
)


def overlap_section(family: str, result: FamilyOverlap) -> Section:
    what = FAMILY_NAMES[family]
    section = Section(f"{what}: overlap")
    section.pictures.append(
        Picture(
            f"{family}-categories",
            figures.category_heatmap(result.matrix, f"Overlap of {what} between categories"),
            "Mean Jaccard overlap over all pairs of two different instructions, one of the row's "
            "category and one of the column's. Random sets with the same size in every layer would "
            f"have {_mean(result.chance.mean)}. Every cell's interval and its level under permuted "
            "labels: analysis/category_matrix.parquet.",
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
    if sum(part.effect.low is not None for part in result.by_layer) > 1:
        section.pictures.append(
            Picture(
                f"{family}-effect-by-layer",
                figures.effect_by_layer(result.by_layer, f"Category effect over depth, {what}"),
                "Overlap within each layer alone: mean Jaccard of same-type minus that of "
                "different-type pairs, with 95 % intervals over instructions. Grey: the central "
                "95 % with labels permuted among instructions of like length and source.",
            )
        )
    if len(result.sources) > 1:
        section.pictures.append(
            Picture(
                f"{family}-sources",
                figures.source_heatmaps(result.sources, f"Overlap of {what} by source"),
                "Mean Jaccard over pairs within one source, and over pairs of two: across sources "
                "no two instructions share an author.",
            )
        )
    section.tables.append(_pair_table(result))
    if result.reliability is not None:
        section.tables.append(_reliability_table(result.reliability))
    return section


def _effect_statement(what: str, result: FamilyOverlap) -> str:
    split, effect, explained = result.distributions, result.effect, result.by_length.explained
    means = f"mean Jaccard {split.same.mean:.3f} against {split.different.mean:.3f}"
    if effect.value is None or effect.value <= 0:
        return f"Instructions of the same type share no more {what} than others: {means}."
    null = (
        f"with labels permuted among instructions of like length and source it is "
        f"{number(effect.chance)} (p = {p_value(effect)})"
    )
    if effect.p is None or effect.p > 0.05:
        return (
            f"That instructions of the same type share more {what} cannot be told from chance: "
            f"{means}, difference {show(effect)}; {null}."
        )
    text = (
        f"Two instructions of the same type share more {what} than two of different types: "
        f"{means}. The difference is {show(effect)}; {null}."
    )
    if explained.value is not None:
        text += f" Length explains {show(explained, 2)} of it (1: all)."
    return text


def _layer_statement(what: str, result: FamilyOverlap) -> str:
    histogram = result.histogram
    layers = np.unique(histogram.layers)
    share = histogram.share.mean(0)
    per_layer = np.array([share[histogram.layers == layer].sum() for layer in layers])
    even = np.array([histogram.chance[histogram.layers == layer].sum() for layer in layers])
    top = per_layer.argsort()[::-1][:3]
    named = ", ".join(
        f"layer {layers[i]} ({per_layer[i]:.0%}; evenly spread {even[i]:.0%})" for i in top
    )
    text = f"The layers with most {what}: {named}."
    stability = result.pattern.stability
    if stability.value is not None:
        text += f" Stability of this pattern over categories: {show(stability, 2)}"
        if stability.chance is not None:
            text += f", and {number(stability.chance, 2)} were category of no account"
        text += " (1: all alike, 0: as far from each other as from an even spread)."
    return text


def _pair_table(result: FamilyOverlap) -> Table:
    """The figures behind the statements, each with interval and chance level."""
    rows = [
        ("same minus different type", result.effect),
        ("the same, origins as wholes", result.effect_by_origin),
        ("the same within like length", result.by_length.effect),
        ("share of it that length explains", result.by_length.explained),
    ]
    if len(result.sources) > 1:
        rows += [
            ("the same within like length and source", result.adjusted.effect),
            ("share of it that length and source explain", result.adjusted.explained),
        ]
        for part in result.sources:
            within = part.first == part.second
            pair = f"within {part.first}" if within else f"{part.first} against {part.second}"
            rows.append((f"same minus different type, {pair}", part.effect))
    rows += [
        ("probability that a same-type pair overlaps more", result.superiority),
        ("distance between categories' layer shares", result.pattern.between),
        ("distance of layer shares from an even spread", result.pattern.from_even),
        ("stability of the pattern over depth", result.pattern.stability),
    ]
    if result.reliability is not None:
        rows.append(("split-half reliability of the heatmap", result.reliability.matrix))
    head = ("figure", "value", "95 % interval", "chance level", "95 % of chance", "p")
    return Table(head, [(name, *cells(item)) for name, item in rows])


def _reliability_table(result: Reliability) -> Table:
    text = (
        "Reliability of prevalence: each category is halved at random, again and again; the "
        "correlation of the halves' prevalences over all components, stepped up to the full size. "
        "Its chance level is the correlation with halves of the other categories: what all "
        "categories share."
    )
    pairs = zip(result.categories, result.prevalence, strict=True)
    head = ("category", "reliability", "95 % of splits", "chance level", "95 % of chance")
    return Table(head, [(name, *cells(item)[:-1]) for name, item in pairs], text)


def _mean(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    return number(float(known.mean()) if known.size else None)
