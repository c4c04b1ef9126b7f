"""The section of the page about pairs of sets: overlap, depth, confounders, reliability."""

import numpy as np

from sparcom.analysis.stats.estimate import estimate_of
from sparcom.report import figures
from sparcom.report.format import estimate_texts, number, p_value, with_interval
from sparcom.report.section import FAMILY_NAMES, Picture, Section, Table
from sparcom.report.tables import Row, Tables, array, distinct, square


def overlap_sections(tables: Tables) -> list[Section]:
    """One section for each family whose pairs were taken."""
    families = distinct(tables.rows("category_matrix"), "family")
    return [_section(tables, family) for family in families]


def _section(tables: Tables, family: str) -> Section:
    what = FAMILY_NAMES[family]
    section = Section(f"{what}: overlap")
    section.pictures.append(_heatmap(tables, family, what))
    if tables.rows("pair_summary", family=family):
        section.pictures.append(
            Picture(
                name=f"{family}-same-different",
                figure=figures.same_different(
                    tables.rows("pair_distribution", family=family),
                    tables.rows("pair_summary", family=family),
                    f"Same type against different type, {what}",
                ),
                caption="Each pair of instructions once. Dashed: the means.",
            )
        )
        section.statements.append(_effect_statement(tables, family, what))
    section.pictures.append(
        Picture(
            name=f"{family}-layers",
            figure=figures.layer_curves(
                tables.rows("layers", family=family), f"{what} over depth", what
            ),
            caption="Mean number in an instruction's set, per layer and category, with 95 % "
            "intervals over instructions. Dotted: the same number spread evenly over all "
            "components.",
        )
    )
    section.statements.append(_layer_statement(tables, family, what))
    section.pictures += _layer_effects(tables, family, what) + _sources(tables, family, what)
    section.tables.append(_pair_table(tables, family))
    section.tables += _reliability_table(tables, family)
    return section


def _heatmap(tables: Tables, family: str, what: str) -> Picture:
    rows = tables.rows("category_matrix", family=family)
    chance = array(rows, "J0")
    known = chance[np.isfinite(chance)]
    random = number(float(known.mean()) if known.size else None, none="undetermined")
    return Picture(
        name=f"{family}-categories",
        figure=figures.category_heatmap(
            distinct(rows, "a"), square(rows), f"Overlap of {what} between categories"
        ),
        caption="Mean Jaccard overlap over all pairs of two different instructions, one of the "
        "row's category and one of the column's. Random sets with the same size in every layer "
        f"would have {random}. The interval of every mean and its level under permuted labels: "
        "analysis/category_matrix.parquet.",
    )


def _layer_effects(tables: Tables, family: str, what: str) -> list[Picture]:
    rows = tables.rows("layer_effects", family=family)
    if sum(row["low"] is not None for row in rows) < 2:
        return []
    return [
        Picture(
            name=f"{family}-effect-by-layer",
            figure=figures.effect_by_layer(rows, f"Category effect over depth, {what}"),
            caption="Overlap within each layer alone: mean Jaccard of same-type minus that of "
            "different-type pairs, with 95 % intervals over instructions. Grey: the central "
            "95 % with labels permuted among instructions of like length and source.",
        )
    ]


def _sources(tables: Tables, family: str, what: str) -> list[Picture]:
    rows = tables.rows("source_matrix", family=family)
    pairs = list(dict.fromkeys((row["first"], row["second"]) for row in rows))
    if len(pairs) < 2:
        return []
    parts = [
        (*pair, square([row for row in rows if (row["first"], row["second"]) == pair]))
        for pair in pairs
    ]
    return [
        Picture(
            name=f"{family}-sources",
            figure=figures.source_heatmaps(
                distinct(rows, "a"), parts, f"Overlap of {what} by source"
            ),
            caption="Mean Jaccard over pairs within one source, and over pairs of two: across "
            "sources no two instructions share an author.",
        )
    ]


def _effect_statement(tables: Tables, family: str, what: str) -> str:
    same, different = (
        tables.row("pair_summary", family=family, pairs=f"{name} type")["mean"]
        for name in ("same", "different")
    )
    effect = tables.estimate("effects", family=family, figure="category effect")
    means = f"mean Jaccard {same:.3f} against {different:.3f}"
    if effect.value is None or effect.value <= 0:
        return f"Instructions of the same type share no more {what} than others: {means}."
    null = (
        f"with labels permuted among instructions of like length and source it is "
        f"{number(effect.chance, none='undetermined')} (p = {p_value(effect.p)})"
    )
    if effect.p is None or effect.p > 0.05:
        return (
            f"That instructions of the same type share more {what} cannot be told from chance: "
            f"{means}, difference {with_interval(effect)}; {null}."
        )
    text = (
        f"Two instructions of the same type share more {what} than two of different types: "
        f"{means}. The difference is {with_interval(effect)}; {null}."
    )
    explained = tables.estimate("effects", family=family, figure="share explained by length")
    if explained.value is not None:
        text += f" Length explains {with_interval(explained, 2)} of it (1: all)."
    return text


def _layer_statement(tables: Tables, family: str, what: str) -> str:
    rows = tables.rows("layers", family=family)
    categories = len(distinct(rows, "category"))
    sites = rows[: len(rows) // categories]
    site_layers = array(sites, "layer").astype(int)
    layers = np.unique(site_layers)
    share = array(rows, "share").reshape(categories, len(sites)).mean(0)
    chance = array(sites, "chance")
    per_layer = np.array([share[site_layers == layer].sum() for layer in layers])
    even = np.array([chance[site_layers == layer].sum() for layer in layers])
    top = per_layer.argsort()[::-1][:3]
    named = ", ".join(
        f"layer {layers[i]} ({per_layer[i]:.0%}; evenly spread {even[i]:.0%})" for i in top
    )
    text = f"The layers with most {what}: {named}."
    stability = tables.estimate("effects", family=family, figure="layer stability")
    if stability.value is not None:
        text += f" Stability of this pattern over categories: {with_interval(stability, 2)}"
        if stability.chance is not None:
            text += f", and {number(stability.chance, 2)} if the category had no effect"
        text += " (1: all alike, 0: as far from each other as from an even spread)."
    return text


def _pair_table(tables: Tables, family: str) -> Table:
    """The figures behind the statements, each with interval and chance level."""

    def texts(words: str, figure: str) -> tuple[str, ...]:
        return words, *estimate_texts(tables.estimate("effects", family=family, figure=figure))

    rows = [
        texts("same minus different type", "category effect"),
        texts("the same, origins as wholes", "category effect, by origin"),
        texts("the same within like length", "category effect, length held fixed"),
        texts("share of it that length explains", "share explained by length"),
    ]
    sources = tables.rows("source_effects", family=family)
    if len(sources) > 1:
        held = "category effect, length and source held fixed"
        rows += [
            texts("the same within like length and source", held),
            texts(
                "share of it that length and source explain",
                "share explained by length and source",
            ),
        ]
        rows += [_source_row(row) for row in sources]
    rows += [
        texts("probability that a same-type pair overlaps more", "superiority of same-type pairs"),
        texts("distance between categories' layer shares", "layer distance between categories"),
        texts("distance of layer shares from an even spread", "layer distance from an even spread"),
        texts("stability of the pattern over depth", "layer stability"),
    ]
    if tables.rows("effects", family=family, figure="category matrix reliability"):
        rows.append(texts("split-half reliability of the heatmap", "category matrix reliability"))
    head = ("figure", "value", "95 % interval", "chance level", "95 % of chance", "p")
    return Table(head, rows)


def _source_row(row: Row) -> tuple[str, ...]:
    within = row["first"] == row["second"]
    pair = f"within {row['first']}" if within else f"{row['first']} against {row['second']}"
    return f"same minus different type, {pair}", *estimate_texts(estimate_of(row))


def _reliability_table(tables: Tables, family: str) -> list[Table]:
    rows = tables.rows("effects", family=family, figure="prevalence reliability")
    if not rows:
        return []
    text = (
        "Reliability of prevalence: each category is halved at random, many times; the correlation "
        "of the halves' prevalences over all components, stepped up to the full size. Its chance "
        "level is the correlation with halves of the other categories: what all categories share."
    )
    head = ("category", "reliability", "95 % of splits", "chance level", "95 % of chance")
    body = [(row["where"], *estimate_texts(estimate_of(row))[:-1]) for row in rows]
    return [Table(head, body, text)]
