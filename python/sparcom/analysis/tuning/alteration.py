"""How tuning changed the sets of one family, instruction by instruction.

Both runs hold the same instructions with the same token ids, so every figure is paired: each
instruction is its own control. Intervals resample instructions within their category; the null of
a layer shift swaps the two runs of an instruction at random.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sparcom.analysis.data.bitsets import paired_intersections, set_sizes
from sparcom.analysis.data.sites import FamilySite, site_sizes
from sparcom.analysis.overlap.measures import jaccard
from sparcom.analysis.stats.estimate import Estimate, estimate
from sparcom.analysis.tuning.component_changes import component_changes
from sparcom.analysis.tuning.layer_changes import layer_changes, unchanged_if_empty
from sparcom.components import ComponentSpace


@dataclass(frozen=True, kw_only=True)
class FamilyAlteration:
    """How one family changed.

    categories: [C], and after them "all" in every tuple below.
    jaccard: [n] of each instruction's two sets; before, after, kept: [n] sizes.
    overlap: [C + 1] Estimate, mean Jaccard; chance is J0, random sets of the same sizes per site.
    shift: [C + 1] Estimate, total variation between the layer shares before and after; the null
        swaps the two sets of instructions at random.
    noise_floor: [C + 1] Estimate, mean Jaccard of the same model against itself.
    beyond_noise_floor: [C + 1] Estimate, mean (1 - Jaccard) minus that of the noise floor. Moved:
        its interval lies above 0. Both are None if no noise floor was given.
    layers: of `layer_changes`; components: of `component_changes`.
    """

    family: str
    categories: tuple[str, ...]
    jaccard: np.ndarray
    before: np.ndarray
    after: np.ndarray
    kept: np.ndarray
    overlap: tuple[Estimate, ...]
    shift: tuple[Estimate, ...]
    noise_floor: tuple[Estimate, ...] | None
    beyond_noise_floor: tuple[Estimate, ...] | None
    layers: pa.Table
    components: pa.Table

    def figures(self) -> list[tuple[str, str, Estimate]]:
        """(category, figure, estimate) of every figure by category that there is."""
        known = {
            "overlap": self.overlap,
            "layer shift": self.shift,
            "noise floor": self.noise_floor,
            "beyond noise floor": self.beyond_noise_floor,
        }
        return [
            (category, name, estimates[at])
            for at, category in enumerate((*self.categories, "all"))
            for name, estimates in known.items()
            if estimates is not None
        ]


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
    noise_floor: np.ndarray | None,
) -> FamilyAlteration:
    """Compare packed sets first, second [n, bytes] of the same instructions.

    codes: [n] categories; weights: [draws, n] bootstrap weights within categories.
    noise_floor: [n] Jaccard of the same instructions between two runs of one model; None: not
    measured.
    """
    before, after = site_sizes(first, sites), site_sizes(second, sites)
    kept = site_sizes(first & second, sites)
    sizes = before.sum(1), after.sum(1)
    values = paired_jaccard(first, second)
    widths = np.array([site.width for site in sites])
    # J0 to first order: E|A & B| / E|A | B|.
    chance = unchanged_if_empty(jaccard((before * after / widths).sum(1), *sizes), *sizes)
    groups = [codes == c for c in range(len(categories))] + [np.ones(len(codes), bool)]
    floors = beyond = None
    if noise_floor is not None:
        floors = tuple(_mean(noise_floor, group, weights) for group in groups)
        beyond = tuple(_mean(noise_floor - values, group, weights) for group in groups)
    return FamilyAlteration(
        family=family,
        categories=categories,
        jaccard=values,
        before=sizes[0],
        after=sizes[1],
        kept=kept.sum(1),
        overlap=tuple(_mean(values, group, weights, chance) for group in groups),
        shift=tuple(_shift(before, after, group, weights, rng) for group in groups),
        noise_floor=floors,
        beyond_noise_floor=beyond,
        layers=layer_changes(family, sites, categories, groups, weights, (before, after, kept)),
        components=component_changes(family, first, second, space),
    )


def paired_jaccard(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[n] Jaccard of each instruction's two sets [n, bytes]; 1, unchanged, if both are empty."""
    a, b = set_sizes(first), set_sizes(second)
    return unchanged_if_empty(jaccard(paired_intersections(first, second), a, b), a, b)


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
        float(_variation(change.mean(0))),
        _variation(weight @ change / weight.sum(1, keepdims=True)),
        _variation(signs @ change / len(change)),
        recentre=True,
    )


def _share(sizes: np.ndarray) -> np.ndarray:
    total = sizes.sum(1, keepdims=True)
    return np.divide(sizes, total, out=np.zeros(sizes.shape), where=total > 0)


def _variation(change: np.ndarray) -> np.ndarray:
    return np.abs(change).sum(-1) / 2
