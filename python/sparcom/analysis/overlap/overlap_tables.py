"""What `analyse` writes of pairs of sets, as Arrow tables."""

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa

from sparcom.analysis.overlap.family_overlap import FamilyOverlap
from sparcom.analysis.overlap.same_different import QUANTILES
from sparcom.analysis.stats.estimate import Estimate, estimate_table

PRIMARY = "category effect, adjusted"
"""The primary figure: length, source and shared tokens held fixed; clusters are the unit."""
QUANTILE_NAMES = tuple(f"q{round(100 * q):02d}" for q in QUANTILES)
SUMMARY_SCHEMA = pa.schema(
    [
        ("family", pa.string()),
        ("pairs", pa.string()),
        ("count", pa.int64()),
        *((name, pa.float64()) for name in ("mean", "sd", *QUANTILE_NAMES)),
    ]
)


def matrix_table(result: FamilyOverlap) -> pa.Table:
    """One row per two categories a, b: the matrices and the estimate of the Jaccard.

    adjusted: M with length, source and shared tokens held fixed; adjusted_chance: the mean of its
    null; adjusted_p: corrected over the cells.
    """
    names = result.matrix.categories
    count = len(names)
    extra = {
        "J0": result.chance.mean,
        "J0_prevalence": result.chance_prevalence.mean,
        "corrected": result.corrected.mean,
        "overlap_coefficient": result.overlap_coefficient.mean,
        "containment": result.containment.mean,
    }
    table = estimate_table(
        {
            "family": [result.family] * count**2,
            "a": [a for a in names for _ in names],
            "b": list(names) * count,
            "pairs": result.matrix.pairs.reshape(-1).tolist(),
        },
        [item for row in result.estimates for item in row],
    )
    for name, matrix in extra.items():
        column = pa.array(matrix.reshape(-1), pa.float64(), from_pandas=True)
        table = table.append_column(name, column)
    cells = [item for row in result.adjusted for item in row]
    for name, field in (("adjusted", "value"), ("adjusted_chance", "chance"), ("adjusted_p", "p")):
        column = pa.array([getattr(cell, field) for cell in cells], pa.float64())
        table = table.append_column(name, column)
    return table


def source_matrix_table(result: FamilyOverlap) -> pa.Table:
    """One row per two sources (or one twice) and two categories a, b: M over their pairs."""
    names, parts = result.matrix.categories, result.sources
    entries = len(names) ** 2
    pairs = [part.matrix.pairs.reshape(-1) for part in parts]
    return estimate_table(
        {
            "family": _texts(result.family, entries * len(parts)),
            "first": pa.array([part.first for part in parts for _ in range(entries)], pa.string()),
            "second": pa.array(
                [part.second for part in parts for _ in range(entries)], pa.string()
            ),
            "a": pa.array([a for a in names for _ in names] * len(parts), pa.string()),
            "b": pa.array(list(names) * (len(names) * len(parts)), pa.string()),
            "pairs": pa.array(np.concatenate([*pairs, np.zeros(0, np.int64)]), pa.int64()),
        },
        [item for part in parts for row in part.estimates for item in row],
    )


def distribution_table(result: FamilyOverlap) -> pa.Table:
    """One row per bin of Jaccard: share of the same-type and of the different-type pairs in it."""
    split = result.distributions
    edges = np.zeros(1) if split is None else split.edges
    return pa.table(
        {
            "family": _texts(result.family, len(edges) - 1),
            "low": edges[:-1],
            "high": edges[1:],
            "same_type": np.zeros(0) if split is None else split.same.density,
            "different_type": np.zeros(0) if split is None else split.different.density,
        }
    )


def summary_table(result: FamilyOverlap) -> pa.Table:
    """One row for the same-type and one for the different-type pairs: their Jaccard summed up.

    pairs: "same type" | "different type"; count, mean, sd, and quantiles q05 to q95.
    """
    split, rows = result.distributions, []
    for name in ("same", "different") if split else ():
        part = getattr(split, name)
        quantiles = dict(zip(QUANTILE_NAMES, part.quantiles, strict=True))
        rows.append(
            {"family": result.family, "pairs": f"{name} type", "count": part.count,
             "mean": part.mean, "sd": part.sd, **quantiles}
        )  # fmt: skip
    return pa.Table.from_pylist(rows, SUMMARY_SCHEMA)


def reliability_table(result: FamilyOverlap) -> pa.Table:
    """One row per pair of categories: correlation of prevalences without sampling noise."""
    found = result.reliability
    names = () if found is None else found.categories
    empty = np.zeros((0, 0))
    columns = {
        "value": empty if found is None else found.between,
        "low": empty if found is None else found.between_low,
        "high": empty if found is None else found.between_high,
    }
    return pa.table(
        {
            "family": _texts(result.family, len(names) ** 2),
            "a": pa.array([a for a in names for _ in names], pa.string()),
            "b": pa.array(list(names) * len(names), pa.string()),
            **{
                name: pa.array(values.reshape(-1), pa.float64(), from_pandas=True)
                for name, values in columns.items()
            },
        }
    )


def layer_matrix_table(result: FamilyOverlap) -> pa.Table:
    """One row per site and two categories a, b: M of the site's own Jaccard."""
    names, sites = result.matrix.categories, result.layer_matrices
    entries = len(names) ** 2
    return estimate_table(
        {
            "family": _texts(result.family, entries * len(sites)),
            "layer": pa.array(np.repeat([site.layer for site in sites], entries), pa.int64()),
            "kind": pa.array([site.kind for site in sites for _ in range(entries)], pa.string()),
            "a": pa.array([a for a in names for _ in names] * len(sites), pa.string()),
            "b": pa.array(list(names) * (len(names) * len(sites)), pa.string()),
        },
        [item for site in sites for row in site.estimates for item in row],
    )


def layer_effects_table(result: FamilyOverlap) -> pa.Table:
    """One row per site: the adjusted category effect of its own Jaccard; p is of all sites."""
    sites = result.by_layer
    columns = {
        "family": _texts(result.family, len(sites)),
        "layer": pa.array([site.layer for site in sites], pa.int64()),
        "kind": pa.array([site.kind for site in sites], pa.string()),
    }
    return estimate_table(columns, [site.effect for site in sites])


def source_effects_table(result: FamilyOverlap) -> pa.Table:
    """One row per two sources (or one twice): the adjusted effect among the pairs between them."""
    parts = result.sources
    columns = {
        "family": _texts(result.family, len(parts)),
        "first": pa.array([part.first for part in parts], pa.string()),
        "second": pa.array([part.second for part in parts], pa.string()),
    }
    return estimate_table(columns, [part.effect for part in parts])


def _distance_table(result: FamilyOverlap) -> pa.Table:
    table = result.pattern.table()
    return table.add_column(0, "family", pa.array([result.family] * len(table), pa.string()))


def effects_table(result: FamilyOverlap) -> pa.Table:
    """Every scalar figure of a family, one row each; where: the category, if it is of one."""
    effects = result.effects
    rows: list[tuple[str, str, Estimate]] = [
        (PRIMARY, "", effects.adjusted),
        ("category effect, raw", "", effects.raw),
        ("category effect, between clusters", "", effects.between),
        ("category effect, length held fixed", "", effects.by_length),
        ("category effect, length and source held fixed", "", effects.by_stratum),
        ("share explained by length", "", effects.explained_by_length),
        ("share explained by length, source and tokens", "", effects.explained),
        ("clusters", "", Estimate(float(len(result.nodes.drawn_from)))),
        ("clusters with several categories", "", Estimate(_crossed(result))),
        ("pairs comparable in length and source", "", Estimate(effects.informative)),
        ("superiority of same-type pairs", "", result.superiority),
        ("layer distance between categories", "", result.pattern.between),
        ("layer distance over chance", "", result.pattern.excess),
        ("layer distance from an even spread", "", result.pattern.from_even),
        ("layer stability", "", result.pattern.stability),
    ]
    if result.reliability:
        pairs = zip(result.reliability.categories, result.reliability.prevalence, strict=True)
        rows += [("prevalence reliability", name, value) for name, value in pairs]
        rows.append(("category matrix reliability", "", result.reliability.matrix))
    figure, where, values = zip(*rows, strict=True)
    columns = {"family": [result.family] * len(rows), "figure": figure, "where": where}
    return estimate_table(columns, values)


def paired_table(result: FamilyOverlap) -> pa.Table:
    """One row per figure of the paired effect; none unless clusters hold every category."""
    figures = {} if result.paired is None else result.paired.figures()
    columns = {
        "family": _texts(result.family, len(figures)),
        "figure": pa.array(list(figures), pa.string()),
    }
    return estimate_table(columns, list(figures.values()))


def _crossed(result: FamilyOverlap) -> float:
    """How many clusters hold several categories."""
    return float((result.nodes.drawn_from < 0).sum())


def _texts(text: str, count: int) -> pa.Array:
    return pa.array([text] * count, pa.string())


OVERLAP_TABLES: dict[str, Callable[[FamilyOverlap], pa.Table]] = {
    "category_matrix": matrix_table,
    "paired": paired_table,
    "source_matrix": source_matrix_table,
    "source_effects": source_effects_table,
    "pair_distribution": distribution_table,
    "pair_summary": summary_table,
    "reliability": reliability_table,
    "layer_matrix": layer_matrix_table,
    "layer_effects": layer_effects_table,
    "layers": lambda result: result.histogram.table(),
    "layer_distance": _distance_table,
    "effects": effects_table,
}
"""Name -> what makes the table of one family."""


def overlap_tables(overlaps: Mapping[str, FamilyOverlap]) -> dict[str, pa.Table]:
    """The tables of pairs, all families in each; none without families."""
    if not overlaps:
        return {}
    return {
        name: pa.concat_tables([make(result) for result in overlaps.values()])
        for name, make in OVERLAP_TABLES.items()
    }
