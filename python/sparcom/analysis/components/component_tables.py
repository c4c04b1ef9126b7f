"""What `analyse` writes of components, as Arrow tables."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from sparcom.analysis.components.family_components import FamilyComponents
from sparcom.analysis.data.membership import (
    Membership,
    chance_ratio_of_sums,
    mean_intersection,
    ratio_of_sums,
)
from sparcom.analysis.data.sites import family_sites
from sparcom.analysis.stats.wilson import wilson
from sparcom.component_list import component_table
from sparcom.components import ComponentSpace


def component_tables(
    components: Mapping[str, FamilyComponents],
    memberships: Mapping[str, Membership],
    space: ComponentSpace,
) -> dict[str, pa.Table]:
    """The tables of components: some for all, some for neurons and experts each."""
    matrices = [prevalence_matrix_table(name, m, space) for name, m in memberships.items()]
    counts = [component_counts_table(result) for result in components.values()]
    out = {
        "prevalence_matrix": pa.concat_tables(matrices),
        "component_counts": pa.concat_tables(counts),
    }
    for name, result in components.items():
        if result.conditional is not None:
            held = memberships[name].totals() > 0
            out["conditional_frequency"] = result.conditional.table(space, held)
        out[f"components_{name}"] = components_table(result, memberships[name], space)
        out[f"specific_{name}"] = specific_table(result, space)
        out[f"confirmations_{name}"] = confirmations_table(result)
    return out


def prevalence_matrix_table(family: str, membership: Membership, space: ComponentSpace) -> pa.Table:
    """What follows from prevalence alone, over all instructions: one row per two categories."""
    names, count = membership.categories, len(membership.categories)
    parts = [site.part for site in family_sites(space, family)]
    matrices = {
        "mean_intersection": mean_intersection(membership),
        "ratio_of_sums": ratio_of_sums(membership),
        "chance": chance_ratio_of_sums(membership, parts),
    }
    return pa.table(
        {
            "family": pa.array([family] * count**2, pa.string()),
            "a": pa.array([a for a in names for _ in names], pa.string()),
            "b": pa.array(list(names) * count, pa.string()),
            **{
                name: pa.array(matrix.reshape(-1), pa.float64(), from_pandas=True)
                for name, matrix in matrices.items()
            },
        }
    )


def component_counts_table(result: FamilyComponents) -> pa.Table:
    """How many components are what: one row per figure and category ("all": over all categories).

    chance: random sets (general), an upper bound under permuted labels (unique), the false ones
    that the rate allows (specific); none for the LAPE rule, which always selects its fraction.
    "tests" is the number of tests, one for each category and tested component.
    """
    scores, test = result.generality, result.test
    unique = result.unique_intervals or [(None, None)] * len(scores.categories)
    rows = [
        ("general", "all", int(scores.general.sum()), *(result.general_interval or (None, None)),
         scores.general_chance),
        ("tests", "all", test.p.size, None, None, None),
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
    return pa.table({"family": pa.array([result.family] * len(rows), pa.string()), **columns})


def components_table(
    result: FamilyComponents, membership: Membership, space: ComponentSpace
) -> pa.Table:
    """One row per component that any set holds: prevalences and scores."""
    held = np.flatnonzero(membership.totals())
    prevalence = membership.prevalence()[:, held].astype(np.float32)
    scores = result.generality
    names = pa.array([*scores.categories, None], pa.string())
    unique = scores.unique[held].astype(np.int64)
    columns = {
        **dict(zip(("layer", "kind", "expert", "unit"), component_table(
            space, result.family, held).columns, strict=True)),
        "members": pa.array(membership.totals()[held], pa.int32()),
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
    """One row per discovery (component, category), the smallest q first.

    inside: instructions of the category whose set holds it, of `instructions`.
    """
    test = result.test
    category, at = np.nonzero(test.specific)
    order = np.lexsort((-test.prevalence[category, at], test.q[category, at]))
    category, at = category[order], at[order]
    table = component_table(space, result.family, test.tested[at])
    inside, size = test.inside[category, at], test.instructions[category]
    low, high = wilson(inside, size)
    columns = {
        "category": pa.array(test.categories, pa.string()).take(pa.array(category)),
        "inside": pa.array(inside),
        "instructions": pa.array(size),
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

    share, low, high: confirmed / discovered with Wilson's interval, null if nothing was found.
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
