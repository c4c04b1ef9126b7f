"""How tuning changed the sets of one family, instruction by instruction.

Both runs hold the same instructions with the same token ids, so every figure is paired: each
instruction is its own control. Intervals resample instructions within their category; the null of
a layer shift swaps the two runs of an instruction at random.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy import stats

from sparcom.analysis.data.bitsets import column_counts, paired_intersections, set_sizes
from sparcom.analysis.overlap.layers import FamilySite, site_sizes
from sparcom.analysis.overlap.overlap import jaccard
from sparcom.analysis.stats.estimate import Estimate, estimate
from sparcom.component_list import component_table
from sparcom.components import ComponentSpace


@dataclass(frozen=True)
class FamilyAlteration:
    """How one family changed.

    categories: [C], and after them "all" in every tuple below.
    jaccard: [n] of each instruction's two sets; before, after, kept: [n] sizes.
    overlap: [C + 1] Estimate, mean Jaccard; chance is J0, random sets of the same sizes per site.
    shift: [C + 1] Estimate, total variation between the layer shares before and after; the null
        swaps the two sets of instructions at random.
    floor: [C + 1] Estimate, mean Jaccard of the noise floor, the same model against itself.
    beyond_floor: [C + 1] Estimate, mean (1 - Jaccard) minus that of the floor. Moved: its interval
        lies above 0. Both are None where no floor was given.
    layers: one row per category and site, means over instructions: before, after, kept, gained and
        lost with intervals, and the overlap within the site with interval and chance.
    components: one row per component with changed membership: gained, lost, p, q (exact sign test
        of gained against lost, Benjamini-Hochberg over all that changed often enough).
    """

    family: str
    categories: tuple[str, ...]
    jaccard: np.ndarray
    before: np.ndarray
    after: np.ndarray
    kept: np.ndarray
    overlap: tuple[Estimate, ...]
    shift: tuple[Estimate, ...]
    floor: tuple[Estimate, ...] | None
    beyond_floor: tuple[Estimate, ...] | None
    layers: pa.Table
    components: pa.Table

    def figures(self) -> dict[str, tuple[Estimate, ...]]:
        """Name -> [C + 1] of every figure by category that there is."""
        found = {
            "overlap": self.overlap,
            "layer shift": self.shift,
            "noise floor": self.floor,
            "beyond floor": self.beyond_floor,
        }
        return {name: value for name, value in found.items() if value is not None}


def family_alteration(
    family: str,
    first: np.ndarray,
    second: np.ndarray,
    space: ComponentSpace,
    sites: Sequence[FamilySite],
    codes: np.ndarray,
    categories: tuple[str, ...],
    weights: np.ndarray,
    rng: np.random.Generator,
    floor: np.ndarray | None = None,
) -> FamilyAlteration:
    """Compare packed sets first, second [n, bytes] of the same instructions.

    codes: [n] categories; weights: [draws, n] bootstrap weights within categories.
    floor: [n] Jaccard of the same instructions between two runs of one model; None: not measured.
    """
    before, after = site_sizes(first, sites), site_sizes(second, sites)
    kept = site_sizes(first & second, sites)
    sizes = before.sum(1), after.sum(1)
    values = paired_jaccard(first, second)
    widths = np.array([site.width for site in sites])
    chance = _ratio_chance((before * after / widths).sum(1), *sizes)
    groups = [codes == c for c in range(len(categories))] + [np.ones(len(codes), bool)]
    against = beyond = None
    if floor is not None:
        against = tuple(_mean(floor, group, weights) for group in groups)
        beyond = tuple(_mean(floor - values, group, weights) for group in groups)
    return FamilyAlteration(
        family,
        categories,
        values,
        *sizes,
        kept.sum(1),
        tuple(_mean(values, group, weights, chance) for group in groups),
        tuple(_shift(before, after, group, weights, rng) for group in groups),
        against,
        beyond,
        _layer_table(family, sites, categories, groups, weights, (before, after, kept)),
        _component_table(family, first, second, space),
    )


def paired_jaccard(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[n] Jaccard of each instruction's two sets [n, bytes]; 1, unchanged, where both are empty."""
    a, b = set_sizes(first), set_sizes(second)
    return np.where(a + b > 0, jaccard(paired_intersections(first, second), a, b), 1.0)


def _ratio_chance(inter: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """J0 to first order: E|A & B| / E|A | B|; 1, unchanged, where both sets are empty."""
    return np.where(before + after > 0, jaccard(inter, before, after), 1.0)


def _mean(
    values: np.ndarray, group: np.ndarray, weights: np.ndarray, chance: np.ndarray | None = None
) -> Estimate:
    if not group.any():
        return Estimate(None)
    weight = weights[:, group]
    result = estimate(float(values[group].mean()), weight @ values[group] / weight.sum(1))
    if chance is None:
        return result
    return Estimate(result.value, result.low, result.high, float(chance[group].mean()))


def _shift(
    before: np.ndarray,
    after: np.ndarray,
    group: np.ndarray,
    weights: np.ndarray,
    rng: np.random.Generator,
) -> Estimate:
    """Total variation between the mean layer shares before and after."""
    shares = [_share(sizes[group]) for sizes in (before, after)]
    change = shares[1] - shares[0]
    if not len(change):
        return Estimate(None)
    weight = weights[:, group]
    signs = rng.choice([-1.0, 1.0], size=(len(weights), len(change)))
    return estimate(
        _variation(change.mean(0)),
        _variation(weight @ change / weight.sum(1, keepdims=True)),
        _variation(signs @ change / len(change)),
        recentre=True,
    )


def _share(sizes: np.ndarray) -> np.ndarray:
    total = sizes.sum(1, keepdims=True)
    return np.divide(sizes, total, out=np.zeros(sizes.shape), where=total > 0)


def _variation(change: np.ndarray) -> np.ndarray:
    return np.abs(change).sum(-1) / 2


def _layer_table(
    family: str,
    sites: Sequence[FamilySite],
    categories: tuple[str, ...],
    groups: Sequence[np.ndarray],
    weights: np.ndarray,
    sizes: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> pa.Table:
    """sizes: before, after and kept, each [n, sites]."""
    before, after, kept = sizes
    widths = np.array([site.width for site in sites])
    names = (*categories, "all")
    rows = [(name, group) for name, group in zip(names, groups, strict=True) if group.any()]
    overlap = np.where(before + after > 0, jaccard(kept, before, after), 1.0)
    chance = _ratio_chance(before * after / widths, before, after)

    def column(values: np.ndarray) -> pa.Array:
        return pa.array(np.concatenate([values[group].mean(0) for _, group in rows]))

    def with_interval(name: str, values: np.ndarray) -> dict[str, pa.Array]:
        bounds = []
        for _, group in rows:
            weight = weights[:, group]
            draws = weight @ values[group] / weight.sum(1, keepdims=True)
            bounds.append(np.quantile(draws, [0.025, 0.975], axis=0))
        low, high = np.concatenate(bounds, 1)
        return {name: column(values), f"{name}_low": pa.array(low), f"{name}_high": pa.array(high)}

    return pa.table(
        {
            "family": [family] * (len(rows) * len(sites)),
            "category": [name for name, _ in rows for _ in sites],
            "layer": [site.layer for site in sites] * len(rows),
            "kind": [site.kind for site in sites] * len(rows),
            "before": column(before),
            "after": column(after),
            "kept": column(kept),
            **with_interval("gained", after - kept),
            **with_interval("lost", before - kept),
            **with_interval("overlap", overlap),
            "chance": column(chance),
        }
    )


def _component_table(
    family: str, first: np.ndarray, second: np.ndarray, space: ComponentSpace, least: int = 6
) -> pa.Table:
    """Sign test of every component whose membership changed in `least` instructions or more.

    Six changes of one direction are the fewest that reach p < 0.05, two-sided. The filter looks at
    the number of changes only, not at their direction, so the test stays valid.
    """
    size = space.experts if family == "experts" else space.neurons
    gained, lost = (column_counts(m)[:size] for m in (second & ~first, first & ~second))
    index = np.flatnonzero(gained + lost >= least)
    p = sign_test(gained[index], lost[index])
    q = stats.false_discovery_control(p)
    order = np.argsort(q, kind="stable")
    index = index[order]
    table = component_table(space, family, index)
    for name, values in (
        ("gained", gained[index]),
        ("lost", lost[index]),
        ("p", p[order]),
        ("q", q[order]),
    ):
        table = table.append_column(name, pa.array(values))
    return table


def sign_test(gained: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """[tests] exact two-sided p of gained against lost, Bin(gained + lost, 1/2) (McNemar's test).

    >>> sign_test(np.array([6, 3]), np.array([0, 3]))
    array([0.03125, 1.     ])
    """
    return np.minimum(2 * stats.binom.cdf(np.minimum(gained, lost), gained + lost, 0.5), 1.0)
