"""Results as Arrow tables: what `analyse` writes to analysis/*.parquet."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from sparcom.analysis.component_file import component_table
from sparcom.analysis.estimate import Estimate, estimate_table, wilson
from sparcom.analysis.family_components import FamilyComponents
from sparcom.analysis.family_overlap import FamilyOverlap
from sparcom.analysis.layers import family_sites
from sparcom.analysis.profile import (
    Profile,
    chance_ratio_of_sums,
    mean_intersection,
    ratio_of_sums,
)
from sparcom.components import ComponentSpace


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


def component_tables(
    components: Mapping[str, FamilyComponents],
    profiles: Mapping[str, Profile],
    space: ComponentSpace,
) -> dict[str, pa.Table]:
    """The tables of components: some for all, some for neurons and experts each."""
    matrices = [prevalence_matrix_table(name, p, space) for name, p in profiles.items()]
    counts = [component_counts_table(result) for result in components.values()]
    out = {
        "prevalence_matrix": pa.concat_tables(matrices),
        "component_counts": pa.concat_tables(counts),
    }
    for name, result in components.items():
        if result.conditional is not None:
            held = profiles[name].totals() > 0
            out["conditional_frequency"] = result.conditional.table(space, held)
        out[f"components_{name}"] = components_table(result, profiles[name], space)
        out[f"specific_{name}"] = specific_table(result, space)
        out[f"confirmations_{name}"] = confirmations_table(result)
    return out


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


def _texts(text: str, count: int) -> pa.Array:
    return pa.array([text] * count, pa.string())


def _distance_table(result: FamilyOverlap) -> pa.Table:
    table = result.pattern.table()
    return table.add_column(0, "family", pa.array([result.family] * len(table), pa.string()))


def prevalence_matrix_table(family: str, profile: Profile, space: ComponentSpace) -> pa.Table:
    """What follows from prevalence alone, over all instructions: one row per cell a, b."""
    names, count = profile.categories, len(profile.categories)
    parts = [site.part for site in family_sites(space, family)]
    matrices = {
        "mean_intersection": mean_intersection(profile),
        "ratio_of_sums": ratio_of_sums(profile),
        "chance": chance_ratio_of_sums(profile, parts),
    }
    return pa.table(
        {
            "family": _texts(family, count**2),
            "a": pa.array([a for a in names for _ in names], pa.string()),
            "b": pa.array(list(names) * count, pa.string()),
            **{
                name: pa.array(matrix.reshape(-1), pa.float64(), from_pandas=True)
                for name, matrix in matrices.items()
            },
        }
    )


def component_counts_table(result: FamilyComponents) -> pa.Table:
    """How many components are what: one row per figure and category ("all": general ones).

    chance: random sets (general), an upper bound under permuted labels (unique), the false ones
    that the rate allows (specific); none for the LAPE rule, which always selects its fraction.
    """
    scores, test = result.generality, result.test
    unique = result.unique_intervals or [(None, None)] * len(scores.categories)
    rows = [
        ("general", "all", int(scores.general.sum()), *(result.general_interval or (None, None)),
         scores.general_chance)
    ]  # fmt: skip
    for at, name in enumerate(scores.categories):
        found, plain = int(test.specific[at].sum()), int(result.plain.specific[at].sum())
        rows += [
            ("unique", name, int(scores.unique_counts()[at]), *unique[at],
             float(scores.unique_chance[at])),
            ("specific", name, found, None, None, test.alpha * found),
            ("specific, unadjusted", name, plain, None, None, result.plain.alpha * plain),
        ]  # fmt: skip
        if result.lape is not None:
            selected = int(result.lape.selected[at].sum())
            rows.append(("LAPE rule", name, selected, None, None, None))
        if result.conditional is not None:
            item = result.conditional.in_sets[at]
            rows.append(("conditional frequency of ISNs", name, item.value, item.low, item.high,
                         item.chance))  # fmt: skip
    names = ("figure", "category", "value", "low", "high", "chance")
    kinds = (pa.string(), pa.string(), *[pa.float64()] * 4)
    columns = {
        name: pa.array(column, kind)
        for name, kind, column in zip(names, kinds, zip(*rows, strict=True), strict=True)
    }
    return pa.table({"family": _texts(result.family, len(rows)), **columns})


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


def components_table(result: FamilyComponents, profile: Profile, space: ComponentSpace) -> pa.Table:
    """One row per component that any set holds: prevalences and scores."""
    held = np.flatnonzero(profile.totals())
    prevalence = profile.prevalence()[:, held].astype(np.float32)
    scores = result.generality
    names = pa.array([*scores.categories, None], pa.string())
    unique = scores.unique[held].astype(np.int64)
    columns = {
        **dict(zip(("layer", "kind", "expert", "unit"), component_table(
            space, result.family, held).columns, strict=True)),
        "members": pa.array(profile.totals()[held], pa.int32()),
        **{f"prevalence_{c}": pa.array(row) for c, row in
           zip(scores.categories, prevalence, strict=True)},
        "tau": pa.array(scores.tau[held].astype(np.float32), from_pandas=True),
        "entropy": pa.array(scores.entropy[held].astype(np.float32), from_pandas=True),
        "general": pa.array(scores.general[held]),
        "unique_to": names.take(pa.array(np.where(unique < 0, len(scores.categories), unique))),
    }  # fmt: skip
    if result.lape is not None:
        for c, row in zip(scores.categories, result.lape.selected, strict=True):
            columns[f"lape_{c}"] = pa.array(row[held])
    return pa.table(columns)


def specific_table(result: FamilyComponents, space: ComponentSpace) -> pa.Table:
    """One row per discovery (component, category), the smallest q first."""
    test = result.test
    category, at = np.nonzero(test.specific)
    order = np.lexsort((-test.prevalence[category, at], test.q[category, at]))
    category, at = category[order], at[order]
    table = component_table(space, result.family, test.tested[at])
    inside = test.inside[category, at]
    size = np.rint(inside / np.maximum(test.prevalence[category, at], 1e-12))
    low, high = wilson(inside, size)
    columns = {
        "category": pa.array(test.categories, pa.string()).take(pa.array(category)),
        "prevalence": pa.array(test.prevalence[category, at]),
        "prevalence_low": pa.array(low),
        "prevalence_high": pa.array(high),
        "elsewhere": pa.array(test.elsewhere[category, at]),
        "p": pa.array(test.p[category, at]),
        "q": pa.array(test.q[category, at]),
        "p_without_strata": pa.array(result.plain.p[category, at]),
    }
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def confirmations_table(result: FamilyComponents) -> pa.Table:
    """One row per ordered pair of sources and category ("all" last): found, and confirmed.

    share, low, high: confirmed / discovered with Wilson's interval, null where nothing was found.
    """
    rows = []
    for c in result.confirmations:
        names = (*result.test.categories, "all")
        found = [*c.discovered.tolist(), int(c.discovered.sum())]
        kept = [*c.confirmed.tolist(), int(c.confirmed.sum())]
        low, high = wilson(np.array(kept), np.array(found))
        for at, chance in enumerate((*c.chances.tolist(), c.chance)):
            known = found[at] > 0
            rows.append(
                {
                    "found_in": c.found_in,
                    "tested_in": c.tested_in,
                    "category": names[at],
                    "discovered": found[at],
                    "confirmed": kept[at],
                    "share": kept[at] / found[at] if known else None,
                    "low": float(low[at]) if known else None,
                    "high": float(high[at]) if known else None,
                    "chance": chance,
                }
            )
    texts, counts = ("found_in", "tested_in", "category"), ("discovered", "confirmed")
    fields = [*((n, pa.string()) for n in texts), *((n, pa.int64()) for n in counts)]
    schema = pa.schema([*fields, *((n, pa.float64()) for n in ("share", "low", "high", "chance"))])
    return pa.Table.from_pylist(rows, schema)
