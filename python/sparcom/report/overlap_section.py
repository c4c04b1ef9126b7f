"""The section of the page about pairs of sets: overlap, depth, confounders, reliability."""

import numpy as np

from sparcom.analysis.overlap.overlap_tables import PRIMARY
from sparcom.analysis.stats.estimate import Estimate, estimate_of
from sparcom.report import figures
from sparcom.report.format import estimate_texts, number, p_value, with_interval
from sparcom.report.paired_text import add_paired
from sparcom.report.section import FAMILY_NAMES, Picture, Section, Table
from sparcom.report.tables import Row, Tables, array, distinct, gaps, square


def overlap_sections(tables: Tables) -> list[Section]:
    """One section for each family whose pairs were taken."""
    families = distinct(tables.rows("category_matrix"), "family")
    return [_section(tables, family) for family in families]


def _section(tables: Tables, family: str) -> Section:
    what = FAMILY_NAMES[family]
    section = Section(f"{what}: overlap")
    add_paired(section, tables, family, what)
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
                caption="Each pair of instructions once; nothing is held fixed. Dashed: the means.",
            )
        )
        section.statements.append(effect_statement(tables, family, what))
    section.pictures.append(
        Picture(
            name=f"{family}-layers",
            figure=figures.layer_curves(
                tables.rows("layers", family=family), f"{what} over depth", what
            ),
            caption="Mean number in an instruction's set, per layer and category, with 95 % "
            "intervals over clusters. Dotted: the same number spread evenly over all components."
            + gaps(tables.rows("layers", family=family), tables.layers),
        )
    )
    section.statements.append(layer_statement(tables, family, what))
    section.pictures += _layer_effects(tables, family, what) + _sources(tables, family, what)
    section.tables.append(_pair_table(tables, family))
    section.tables += _reliability_table(tables, family)
    return section


def _heatmap(tables: Tables, family: str, what: str) -> Picture:
    rows = tables.rows("category_matrix", family=family)
    uniform, prevalent = (_mean(rows, name) for name in ("J0", "J0_prevalence"))
    tested = [row for row in rows if row["adjusted_p"] is not None and row["a"] <= row["b"]]
    apart = sum(row["adjusted_p"] <= 0.05 for row in tested)
    found = (
        f"{apart} of {len(tested)} adjusted means differ from those under permuted clusters at "
        "p <= 0.05, corrected over all of them."
        if tested
        else "Undetermined: too few clusters to test the adjusted means."
    )
    return Picture(
        name=f"{family}-categories",
        figure=figures.category_heatmaps(
            distinct(rows, "a"),
            [("all pairs", square(rows)), ("adjusted", square(rows, "adjusted"))],
            f"Overlap of {what} between categories",
        ),
        caption="Mean Jaccard overlap of two instructions, one of the row's category and one of "
        "the column's. Left: all pairs as they are. Right: pairs of two clusters, with length, "
        "source and the share of common tokens held fixed. Random sets with the same size in every "
        f"layer would have {uniform}; random sets that also keep how often each component is held, "
        f"{prevalent}. {found}",
    )


def _mean(rows: list[Row], column: str) -> str:
    values = array(rows, column)
    known = values[np.isfinite(values)]
    return number(float(known.mean()) if known.size else None, none="undetermined")


def _layer_effects(tables: Tables, family: str, what: str) -> list[Picture]:
    rows = tables.rows("layer_effects", family=family)
    if sum(row["low"] is not None for row in rows) < 2:
        return []
    tested = [row for row in rows if row["p"] is not None]
    found = sum(row["p"] <= 0.05 for row in tested)
    of = "layers" if len(distinct(tested, "layer")) == len(tested) else "sites"
    return [
        Picture(
            name=f"{family}-effect-by-layer",
            figure=figures.effect_by_layer(rows, f"Adjusted category effect over depth, {what}"),
            caption="Overlap within each layer alone: same-type minus different-type pairs of two "
            "clusters, with length, source and common tokens held fixed; 95 % intervals over "
            "clusters, each for its layer alone. Grey: the central 95 % under permuted clusters. "
            f"In {found} of {len(tested)} {of} p <= 0.05, corrected over the {of}."
            + gaps(rows, tables.layers),
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
            "sources no two instructions share an author. Nothing is held fixed.",
        )
    ]


def effect_statement(tables: Tables, family: str, what: str) -> str:
    """What the primary figure bears: the adjusted effect, its interval and its test."""
    same, different = (
        tables.row("pair_summary", family=family, pairs=f"{name} type")["mean"]
        for name in ("same", "different")
    )
    raw, adjusted = (
        tables.estimate("effects", family=family, figure=figure)
        for figure in ("category effect, raw", PRIMARY)
    )
    head = (
        f"{what}: the mean overlap of two instructions of the same type is {same:.3f}, of "
        f"different types {different:.3f}, a difference of "
        f"{number(raw.value, none='undetermined')}."
    )
    return f"{head} {_adjusted_text(tables, family, adjusted)}{_crossed_text(tables, family)}"


def _crossed_text(tables: Tables, family: str) -> str:
    """What a design buys in which each cluster holds several categories."""
    clusters, crossed = (
        tables.row("effects", family=family, figure=figure)["value"]
        for figure in ("clusters", "clusters with several categories")
    )
    if crossed < clusters:
        return ""
    return (
        " Every cluster holds several categories, which are exchanged within it: what a cluster "
        "has in common, such as its passage, cancels by design."
    )


def _adjusted_text(tables: Tables, family: str, adjusted: Estimate) -> str:
    clusters = tables.row("effects", family=family, figure="clusters")["value"]
    between = tables.estimate("effects", family=family, figure="category effect, between clusters")
    if between.value is None:
        return (
            f"Undetermined: {clusters:.0f} clusters, and no two of one category, so that type "
            "cannot be told from what the instructions of a cluster have in common."
        )
    if adjusted.value is None:
        return (
            "No two categories have instructions of like length and source, so that type cannot be "
            "told from these."
        )
    size = (
        "With length, source and the share of common tokens held fixed, among pairs of two "
        f"clusters, it is {with_interval(adjusted)}"
    )
    if adjusted.p is None:
        return f"{size}. Undetermined: {clusters:.0f} clusters are too few to test it."
    null = (
        f"under permuted clusters {number(adjusted.chance)} (p = {p_value(adjusted.p)}, one-sided)"
    )
    if adjusted.p > 0.05:
        return f"{size}, which cannot be told from chance: {null}."
    explained = tables.estimate(
        "effects", family=family, figure="share explained by length, source and tokens"
    )
    if explained.value is None:
        return f"{size}; {null}."
    return (
        f"{size}; {null}. Length, source and tokens explain {with_interval(explained, 2)} of the "
        "difference between clusters (1: all)."
    )


def layer_statement(tables: Tables, family: str, what: str) -> str:
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
            text += f", and {number(stability.chance, 2)} under permuted clusters"
        text += " (1: all alike, 0: as far from each other as from an even spread)."
    return text


def _pair_table(tables: Tables, family: str) -> Table:
    """The figures behind the statements, each with interval and chance level."""

    def texts(words: str, figure: str) -> tuple[str, ...]:
        return words, *estimate_texts(tables.estimate("effects", family=family, figure=figure))

    rows = [
        texts("same minus different type, adjusted (primary)", PRIMARY),
        texts("all pairs, nothing held fixed", "category effect, raw"),
        texts("pairs of two clusters", "category effect, between clusters"),
        texts("the same within like length", "category effect, length held fixed"),
        texts("share of it that length explains", "share explained by length"),
    ]
    sources = tables.rows("source_effects", family=family)
    if len(sources) > 1:
        held = "category effect, length and source held fixed"
        rows.append(texts("the same within like length and source", held))
    rows.append(
        texts(
            "share that length, source and tokens explain",
            "share explained by length, source and tokens",
        )
    )
    rows += [_source_row(row) for row in sources] if len(sources) > 1 else []
    rows += [
        texts("probability that a same-type pair overlaps more", "superiority of same-type pairs"),
        texts("distance between categories' layer shares", "layer distance between categories"),
        texts("distance of layer shares from an even spread", "layer distance from an even spread"),
        texts("stability of the pattern over depth", "layer stability"),
    ]
    if tables.rows("effects", family=family, figure="category matrix reliability"):
        rows.append(texts("split-half reliability of the heatmap", "category matrix reliability"))
    head = ("figure", "value", "95 % interval", "chance level", "95 % of chance", "p")
    text = (
        "Adjusted: length, source and the share of common tokens held fixed. Intervals are over "
        "clusters. Chance: clusters exchange their categories among those of like length and "
        "source. Where nothing is held fixed, or only length, p is no evidence of type: the rows "
        "show what each step takes away. The first row was fixed as the primary figure in advance. "
        "The interval of split-half reliability is that of the splits, not of the figure."
    )
    return Table(head, rows, text)


def _source_row(row: Row) -> tuple[str, ...]:
    within = row["first"] == row["second"]
    pair = f"within {row['first']}" if within else f"{row['first']} against {row['second']}"
    return f"adjusted, {pair}", *estimate_texts(estimate_of(row))


def _reliability_table(tables: Tables, family: str) -> list[Table]:
    rows = tables.rows("effects", family=family, figure="prevalence reliability")
    if not rows:
        return []
    text = (
        "Reliability of prevalence: the clusters of each category are halved at random, many "
        "times; the correlation of the halves' prevalences over all components, stepped up to the "
        "full size. Other categories: the mean correlation with their prevalences, which is what "
        "all categories share."
    )
    head = ("category", "reliability", "95 % of splits", "other categories")
    body = [(row["where"], *estimate_texts(estimate_of(row))[:3]) for row in rows]
    return [Table(head, body, text)]
