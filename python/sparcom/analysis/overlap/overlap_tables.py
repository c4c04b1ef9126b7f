"""What `analyse` writes of pairs of sets, as Arrow tables."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from sparcom.analysis.overlap.family_overlap import FamilyOverlap
from sparcom.analysis.stats.estimate import Estimate, estimate_table


def overlap_tables(overlaps: Mapping[str, FamilyOverlap]) -> dict[str, pa.Table]:
    """The tables of pairs, all families in each; none without families."""
    results = list(overlaps.values())
    if not results:
        return {}
    return {
        "category_matrix": pa.concat_tables([matrix_table(o) for o in results]),
        "source_matrix": pa.concat_tables([source_matrix_table(o) for o in results]),
        "pair_distribution": pa.concat_tables([distribution_table(o) for o in results]),
        "reliability": pa.concat_tables([reliability_table(o) for o in results]),
        "layer_matrix": pa.concat_tables([layer_matrix_table(o) for o in results]),
        "layers": pa.concat_tables([o.histogram.table() for o in results]),
        "layer_distance": pa.concat_tables([_distance_table(o) for o in results]),
        "effects": pa.concat_tables([effect_table(o) for o in results]),
    }


def matrix_table(result: FamilyOverlap) -> pa.Table:
    """One row per cell a, b: the matrices and the estimate of the Jaccard."""
    names = result.matrix.categories
    count = len(names)
    extra = {
        "J0": result.chance.mean,
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
        [cell for row in result.cells for cell in row],
    )
    for name, matrix in extra.items():
        column = pa.array(matrix.reshape(-1), pa.float64(), from_pandas=True)
        table = table.append_column(name, column)
    return table


def source_matrix_table(result: FamilyOverlap) -> pa.Table:
    """One row per two sources (or one twice) and cell a, b: M over the pairs between them."""
    names, parts = result.matrix.categories, result.sources
    cells = len(names) ** 2
    pairs = [part.matrix.pairs.reshape(-1) for part in parts]
    return estimate_table(
        {
            "family": _texts(result.family, cells * len(parts)),
            "first": pa.array([part.first for part in parts for _ in range(cells)], pa.string()),
            "second": pa.array([part.second for part in parts for _ in range(cells)], pa.string()),
            "a": pa.array([a for a in names for _ in names] * len(parts), pa.string()),
            "b": pa.array(list(names) * (len(names) * len(parts)), pa.string()),
            "pairs": pa.array(np.concatenate([*pairs, np.zeros(0, np.int64)]), pa.int64()),
        },
        [cell for part in parts for row in part.cells for cell in row],
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
    """One row per site and cell a, b: M of the site's own Jaccard."""
    names, sites = result.matrix.categories, result.by_layer
    cells = len(names) ** 2
    return estimate_table(
        {
            "family": _texts(result.family, cells * len(sites)),
            "layer": pa.array(np.repeat([site.layer for site in sites], cells), pa.int64()),
            "kind": pa.array([site.kind for site in sites for _ in range(cells)], pa.string()),
            "a": pa.array([a for a in names for _ in names] * len(sites), pa.string()),
            "b": pa.array(list(names) * (len(names) * len(sites)), pa.string()),
        },
        [cell for site in sites for row in site.cells for cell in row],
    )


def _distance_table(result: FamilyOverlap) -> pa.Table:
    table = result.pattern.table()
    return table.add_column(0, "family", pa.array([result.family] * len(table), pa.string()))


def effect_table(result: FamilyOverlap) -> pa.Table:
    """Every scalar figure of a family, one row each."""
    rows: list[tuple[str, str, Estimate]] = [
        ("category effect", "", result.effect),
        ("category effect, by origin", "", result.effect_by_origin),
        ("superiority of same-type pairs", "", result.superiority),
        ("category effect, length and source held fixed", "", result.adjusted.effect),
        ("share explained by length and source", "", result.adjusted.explained),
        ("pairs comparable in length and source", "", Estimate(result.adjusted.informative)),
        ("category effect, length held fixed", "", result.by_length.effect),
        ("share explained by length", "", result.by_length.explained),
        ("pairs comparable in length", "", Estimate(result.by_length.informative)),
        ("layer distance between categories", "", result.pattern.between),
        ("layer distance over chance", "", result.pattern.excess),
        ("layer distance from an even spread", "", result.pattern.from_even),
        ("layer stability", "", result.pattern.stability),
    ]
    rows += [("category effect", f"{s.first} x {s.second}", s.effect) for s in result.sources]
    rows += [("category effect", f"layer {o.layer} {o.kind}", o.effect) for o in result.by_layer]
    if result.reliability:
        pairs = zip(result.reliability.categories, result.reliability.prevalence, strict=True)
        rows += [("prevalence reliability", name, value) for name, value in pairs]
        rows.append(("category matrix reliability", "", result.reliability.matrix))
    figure, where, values = zip(*rows, strict=True)
    columns = {"family": [result.family] * len(rows), "figure": figure, "where": where}
    return estimate_table(columns, values)


def _texts(text: str, count: int) -> pa.Array:
    return pa.array([text] * count, pa.string())
