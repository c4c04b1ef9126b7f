"""What `analyse` writes of components, as Arrow tables."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from sparcom.analysis.components.enrichment import Enrichment
from sparcom.analysis.components.family_components import FamilyComponents
from sparcom.analysis.data.membership import (
    Membership,
    chance_ratio_of_sums,
    mean_intersection,
    ratio_of_sums,
)
from sparcom.analysis.data.sites import family_sites
from sparcom.component_list import component_table
from sparcom.components import ComponentSpace

TEST_TABLES = tuple(
    f"{kind}_{family}"
    for kind in ("tests", "enriched", "specific")
    for family in ("neurons", "experts")
)
"""The tables of a run that retains its counts."""
LARGEST = 100
"""Discoveries of each category and direction in `enriched_*`; `tests_*` holds all."""


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
        out[f"confirmations_{name}"] = confirmations_table(result)
        if result.test is not None:
            out[f"tests_{name}"] = tests_table(result, result.test, space)
            out[f"enriched_{name}"] = enriched_table(result, result.test, memberships[name], space)
            out[f"specific_{name}"] = specific_table(result, result.test, memberships[name], space)
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

    chance, chance_low, chance_high: for general and unique, under permuted clusters; for "general,
    random sets", random sets of the same sizes; for enriched, depleted and specific the false
    discoveries that the rate allows. value is null for a test that too few clusters leave
    undetermined. clusters: of the category, that take part in its tests.
    """
    scores, general = result.generality, result.generality.general
    names = scores.categories
    again = result.relabelled
    rows = [
        ("general", "all", int(general.sum()), None, None,
         *(again.general if again else (None,) * 3)),
        ("general, random sets", "all", None, None, None, scores.general_chance, None, None),
        ("always on", "all", int(result.always_on.sum()), *[None] * 5),
        ("general and always on", "all", int((general & result.always_on).sum()), *[None] * 5),
    ]  # fmt: skip
    for at, name in enumerate(names):
        chance = again.unique[at] if again else (None,) * 3
        rows.append(("unique", name, int(scores.unique_counts()[at]), None, None, *chance))
        if result.lape is not None:
            rows.append(("LAPE rule", name, int(result.lape.selected[at].sum()), *[None] * 5))
        if result.conditional is not None:
            item = result.conditional.in_sets[at]
            rows.append(("conditional frequency of ISNs", name, item.value, item.low, item.high,
                         *[None] * 3))  # fmt: skip
    rows += _test_rows(result.test) if result.test else []
    fields = ("value", "low", "high", "chance", "chance_low", "chance_high")
    names_, kinds = ("figure", "category", *fields), (pa.string(), pa.string(), *[pa.float64()] * 6)
    columns = {
        name: pa.array(column, kind)
        for name, kind, column in zip(names_, kinds, zip(*rows, strict=True), strict=True)
    }
    return pa.table({"family": pa.array([result.family] * len(rows), pa.string()), **columns})


def _test_rows(test: Enrichment) -> list[tuple]:
    rows: list[tuple] = [("tests", "all", test.tests, *[None] * 5)]
    for at, name in enumerate(test.categories):
        for figure, found, known in (
            ("enriched", test.enriched, test.determined[at]),
            ("depleted", test.depleted, test.determined[at]),
            ("specific", test.specific, test.testable[at]),
        ):
            value = int(found[at].sum()) if known else None
            chance = None if value is None else test.alpha * value
            rows.append((figure, name, value, None, None, chance, None, None))
        rows.append(("effective instructions", name, float(test.effective[at]), *[None] * 5))
        rows.append(("clusters", name, int(test.inside_clusters[at]), *[None] * 5))
        rows.append(("clusters of the others", name, int(test.outside_clusters[at]), *[None] * 5))
        apart = [n for n, known in zip(test.categories, test.comparable[at], strict=True)
                 if not known]  # fmt: skip
        rows += [(f"not compared with {other}", name, None, *[None] * 5) for other in apart]
    return rows


def components_table(
    result: FamilyComponents, membership: Membership, space: ComponentSpace
) -> pa.Table:
    """One row per component that any set holds: prevalences, frequencies and scores."""
    held = np.flatnonzero(membership.totals())
    prevalence = membership.prevalence()[:, held].astype(np.float32)
    scores = result.generality
    names = pa.array([*scores.categories, None], pa.string())
    unique = scores.unique[held].astype(np.int64)
    table = component_table(space, result.family, held)
    graded = ("tau", "tau_excess", "entropy", "entropy_excess")
    columns = {
        **{name: table[name] for name in ("layer", "kind", "expert", "unit")},
        "members": pa.array(membership.totals()[held], pa.int32()),
        **{f"prevalence_{c}": pa.array(row) for c, row in
           zip(scores.categories, prevalence, strict=True)},
        **_frequencies(result, held),
        **{name: pa.array(getattr(scores, name)[held].astype(np.float32), from_pandas=True)
           for name in graded},
        "always_on": pa.array(result.always_on[held]),
        "general": pa.array(scores.general[held]),
        "unique_to": names.take(pa.array(np.where(unique < 0, len(scores.categories), unique))),
    }  # fmt: skip
    if result.lape is not None:
        for c, row in zip(scores.categories, result.lape.selected, strict=True):
            columns[f"lape_{c}"] = pa.array(row[held])
    return pa.table(columns)


def _frequencies(result: FamilyComponents, components: np.ndarray) -> dict[str, pa.Array]:
    """frequency_<category>: summed c / summed T."""
    return {
        f"frequency_{name}": pa.array(row[components].astype(np.float32), from_pandas=True)
        for name, row in zip(result.generality.categories, result.frequency, strict=True)
    }


def tests_table(result: FamilyComponents, test: Enrichment, space: ComponentSpace) -> pa.Table:
    """One row per component, in a set or not: difference, error and q for each category."""
    everyone = np.arange(test.p.shape[1])
    table = component_table(space, result.family, everyone)
    columns = _frequencies(result, everyone)
    for at, name in enumerate(test.categories):
        for field in ("difference", "error", "q", "gap", "specific_q"):
            values = getattr(test, field)[at].astype(np.float32)
            columns[f"{field}_{name}"] = pa.array(values, from_pandas=True)
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def enriched_table(
    result: FamilyComponents, test: Enrichment, membership: Membership, space: ComponentSpace
) -> pa.Table:
    """The `LARGEST` differences of each category, enriched and depleted, among the discoveries."""
    chosen = []
    for c in range(len(test.categories)):
        for found, sign in ((test.enriched[c], -1), (test.depleted[c], 1)):
            at = np.flatnonzero(found)
            order = np.argsort(sign * test.difference[c, at], kind="stable")[:LARGEST]
            chosen += [(c, component) for component in at[order]]
    return _discoveries(result, test, membership, space, chosen)


def specific_table(
    result: FamilyComponents, test: Enrichment, membership: Membership, space: ComponentSpace
) -> pa.Table:
    """One row per specific component and category, the largest gap first."""
    category, at = np.nonzero(test.specific)
    order = np.argsort(-test.gap[category, at], kind="stable")
    chosen = list(zip(category[order].tolist(), at[order].tolist(), strict=True))
    return _discoveries(result, test, membership, space, chosen)


def _discoveries(
    result: FamilyComponents,
    test: Enrichment,
    membership: Membership,
    space: ComponentSpace,
    chosen: list[tuple[int, int]],
) -> pa.Table:
    """One row per (category, component).

    difference, low, high: stratified difference of c / T against the rest, with an interval for
    what was selected; q: of it. gap: the smallest difference from another category; gap_q: of its
    exceeding the least difference. prevalence: share of the category's sets that hold it.
    """
    category, at = np.array(chosen, np.int64).reshape(-1, 2).T
    table = component_table(space, result.family, at)
    low, high = test.bounds(category, at)
    columns = {
        "category": pa.array(test.categories, pa.string()).take(pa.array(category)),
        "difference": test.difference[category, at],
        "low": low,
        "high": high,
        "q": test.q[category, at],
        "gap": test.gap[category, at],
        "gap_q": test.specific_q[category, at],
        "prevalence": membership.prevalence()[category, at],
        "always_on": pa.array(result.always_on[at], pa.bool_()),
        **_frequencies(result, at),
    }
    for name, column in columns.items():
        if isinstance(column, np.ndarray):
            column = pa.array(column, pa.float64(), from_pandas=True)
        table = table.append_column(name, column)
    return table


def confirmations_table(result: FamilyComponents) -> pa.Table:
    """One row per ordered pair of sources and category ("all" last): found, and confirmed.

    share: confirmed / discovered, null if nothing was found or the other source has too few
    clusters; clusters: of the category there. No interval: components share their instructions, so
    that they are no independent trials.
    """
    texts, counts = ("found_in", "tested_in", "category"), ("discovered", "confirmed", "clusters")
    fields = [*((n, pa.string()) for n in texts), *((n, pa.int64()) for n in counts)]
    schema = pa.schema([*fields, *((n, pa.float64()) for n in ("share", "chance"))])
    rows = []
    for c in result.confirmations:
        known = np.isfinite(c.confirmed)
        per = zip(result.generality.categories, c.discovered, c.confirmed, c.chances, c.clusters,
                  strict=True)  # fmt: skip
        body = [*per, ("all", c.discovered[known].sum(), np.nansum(c.confirmed), c.chance, None)]
        for name, found, kept, chance, clusters in body:
            row = {"found_in": c.found_in, "tested_in": c.tested_in, "category": name,
                   "discovered": int(found),
                   "clusters": None if clusters is None else int(clusters)}  # fmt: skip
            if np.isfinite(kept) and known.any():
                row |= {"confirmed": int(kept), "chance": float(chance)}
                if found:
                    row["share"] = kept / found
            rows.append(row)
    return pa.Table.from_pylist(rows, schema)
