"""Results as Arrow tables: what `analyse` writes to analysis/*.parquet."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from sparcom.analysis.component_file import component_table
from sparcom.analysis.estimate import Estimate, estimate_table, wilson
from sparcom.analysis.family_components import FamilyComponents
from sparcom.analysis.family_overlap import FamilyOverlap
from sparcom.analysis.profile import Profile, mean_intersection, ratio_of_sums
from sparcom.components import ComponentSpace


def overlap_tables(overlaps: Mapping[str, FamilyOverlap]) -> dict[str, pa.Table]:
    """category_matrix, layer_matrix, layers, layer_distance and effects; none without families."""
    results = list(overlaps.values())
    if not results:
        return {}
    return {
        "category_matrix": pa.concat_tables([matrix_table(o) for o in results]),
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
    """prevalence_matrix, and components_*, specific_* and confirmations of neurons and experts."""
    matrices = [prevalence_matrix_table(name, profile) for name, profile in profiles.items()]
    out = {"prevalence_matrix": pa.concat_tables(matrices)}
    for name, result in components.items():
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


def layer_matrix_table(result: FamilyOverlap) -> pa.Table:
    """One row per site and cell a, b: M of the site's own Jaccard."""
    names, sites = result.matrix.categories, result.by_layer
    cells = len(names) ** 2
    values = np.concatenate([site.matrix.mean.reshape(-1) for site in sites])
    return pa.table(
        {
            "family": [result.family] * (cells * len(sites)),
            "layer": np.repeat([site.layer for site in sites], cells),
            "kind": [site.kind for site in sites for _ in range(cells)],
            "a": [a for a in names for _ in names] * len(sites),
            "b": list(names) * (len(names) * len(sites)),
            "value": pa.array(values, pa.float64(), from_pandas=True),
        }
    )


def _distance_table(result: FamilyOverlap) -> pa.Table:
    table = result.pattern.table()
    return table.add_column(0, "family", pa.array([result.family] * len(table), pa.string()))


def prevalence_matrix_table(family: str, profile: Profile) -> pa.Table:
    """What follows from prevalence alone, over all instructions: one row per cell a, b."""
    names, count = profile.categories, len(profile.categories)
    return pa.table(
        {
            "family": [family] * count**2,
            "a": [a for a in names for _ in names],
            "b": list(names) * count,
            **{
                name: pa.array(matrix.reshape(-1), pa.float64(), from_pandas=True)
                for name, matrix in (
                    ("mean_intersection", mean_intersection(profile)),
                    ("ratio_of_sums", ratio_of_sums(profile)),
                )
            },
        }
    )


def effect_table(result: FamilyOverlap) -> pa.Table:
    """Every scalar figure of a family, one row each."""
    rows: list[tuple[str, str, Estimate]] = [
        ("category effect", "", result.effect),
        ("category effect, by origin", "", result.effect_by_origin),
        ("category effect, strata held fixed", "", result.adjusted.effect),
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
    """One row per ordered pair of sources and category: found in one, confirmed in the other."""
    rows = [
        {
            "found_in": c.found_in,
            "tested_in": c.tested_in,
            "category": name,
            "discovered": int(c.discovered[at]),
            "confirmed": int(c.confirmed[at]),
            "chance": c.chance,
        }
        for c in result.confirmations
        for at, name in enumerate(result.test.categories)
    ]
    schema = pa.schema(
        [
            ("found_in", pa.string()),
            ("tested_in", pa.string()),
            ("category", pa.string()),
            ("discovered", pa.int64()),
            ("confirmed", pa.int64()),
            ("chance", pa.float64()),
        ]
    )
    return pa.Table.from_pylist(rows, schema)
