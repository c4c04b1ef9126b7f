"""Random sets that are matched with a target, and how well they match it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparcom.ablation.target import Target
from sparcom.ablation.use import Use
from sparcom.components import ComponentSpace
from sparcom.errors import InputError

CALIPER = 0.2
"""How far a component may be from the one it replaces, in standard deviations of the target."""
NEAREST = 8
"""Components that each one of the target may be replaced by, at least."""
WORST = 0.1
"""Standardised difference above which no fair comparison exists."""
_TRIED = 3  # of the candidates, of which the one is taken that keeps the set's mean nearest
_SMALLEST = 0.05  # of the spread in the model, the least that a target's spread counts as


@dataclass(frozen=True)
class Balance:
    """What random sets were matched on, in the target and in them.

    frequency, contribution: mean of the target's components (`Use`); frequency_random,
        contribution_random: of all random sets.
    frequency_difference, contribution_difference: standardised, (mean of the target - mean of the
        random sets) / the square root of the mean of their variances, which counts as at least 5 %
        of the spread in the target's sites; of the contribution on the log scale.
    """

    frequency: float
    frequency_random: float
    frequency_difference: float
    contribution: float
    contribution_random: float
    contribution_difference: float

    @property
    def fair(self) -> bool:
        """True if no standardised difference exceeds `WORST`."""
        worst = max(abs(self.frequency_difference), abs(self.contribution_difference))
        return worst <= WORST


def matched_sets(
    target: Target, use: Use, space: ComponentSpace, sets: int, rng: np.random.Generator
) -> np.ndarray:
    """[sets, size] int64: random sets that are like a target, none of its own members in them.

    Every component is replaced by another of its site. Candidates are those within `CALIPER` in
    firing frequency and log contribution, at least the `NEAREST` of them; of a few drawn at random
    the one is taken that brings the set's mean nearest to the target's.
    Raises InputError if a site has too few others.
    """
    features = _features(use)
    inside = np.zeros(len(features), bool)
    inside[target.index] = True
    least = _SMALLEST * _spread_around(features, target, space)
    scale = np.maximum(features[inside].std(0), least)
    x = features / np.where(scale > 0, scale, 1)
    site_of = _site_of(space, target.family)
    free = [np.flatnonzero((site_of == at) & ~inside) for at in range(len(space.sites))]
    for at in np.unique(site_of[target.index]):
        wanted = int((site_of[target.index] == at).sum())
        if len(free[at]) < wanted:
            raise InputError(
                f"ablate: target {target.name!r} holds {wanted} of {wanted + len(free[at])} "
                f"{target.family} of {space.sites[at].name}: too few are left to draw matched "
                "random ones; take a smaller one"
            )
    near = {one: _candidates(x, one, free[site_of[one]]) for one in target.index.tolist()}
    return np.stack([_draw(near, x, free, site_of, rng) for _ in range(sets)])


def _candidates(x: np.ndarray, one: int, free: np.ndarray) -> np.ndarray:
    """Those of `free` that may replace a component, nearest first."""
    distance = np.linalg.norm(x[free] - x[one], axis=1)
    order = np.argsort(distance, kind="stable")
    within = int((distance <= CALIPER).sum())
    return free[order[: max(within, NEAREST)]]


def _draw(
    near: dict[int, np.ndarray],
    x: np.ndarray,
    free: list[np.ndarray],
    site_of: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """One random set, [size], sorted."""
    taken: set[int] = set()
    off = np.zeros(x.shape[1])
    for one in rng.permutation(list(near)).tolist():
        left = [c for c in near[one].tolist() if c not in taken]
        if not left:  # all went to others: the nearest that is left in the site
            left = [c for c in _candidates(x, one, free[site_of[one]]).tolist() if c not in taken]
        if not left:
            left = [c for c in free[site_of[one]].tolist() if c not in taken]
        tried = rng.choice(left, min(_TRIED, len(left)), replace=False)
        offs = off + x[tried] - x[one]
        best = int(np.argmin((offs**2).sum(1)))
        off = offs[best]
        taken.add(int(tried[best]))
    return np.sort(np.fromiter(taken, np.int64))


def balance(target: Target, random: np.ndarray, use: Use, space: ComponentSpace) -> Balance:
    """How random sets, [sets, size], compare with a target on what they were matched on."""
    features, index, drawn = _features(use), target.index, random.reshape(-1)
    least = _SMALLEST * _spread_around(features, target, space)
    spread = np.sqrt((features[index].var(0) + features[drawn].var(0)) / 2)
    gap = features[index].mean(0) - features[drawn].mean(0)
    scale = np.maximum(spread, least)
    differences = (gap / np.where(scale > 0, scale, 1)).tolist()
    return Balance(
        frequency=float(use.frequency[index].mean()),
        frequency_random=float(use.frequency[drawn].mean()),
        frequency_difference=differences[0],
        contribution=float(use.contribution[index].mean()),
        contribution_random=float(use.contribution[drawn].mean()),
        contribution_difference=differences[1],
    )


def worst_of(balances: Sequence[Balance]) -> Balance:
    """The balance of a target's editions together: mean figures, the worst differences."""
    out = {}
    for name in Balance.__dataclass_fields__:
        values = [getattr(one, name) for one in balances]
        worst = max(values, key=abs)
        out[name] = worst if name.endswith("difference") else float(np.mean(values))
    return Balance(**out)


def _features(use: Use) -> np.ndarray:
    """[components, 2]: firing frequency, log contribution."""
    positive = use.contribution[use.contribution > 0]
    least = positive.min() if len(positive) else 1.0
    return np.stack([use.frequency, np.log(np.maximum(use.contribution, least))], 1)


def _spread_around(features: np.ndarray, target: Target, space: ComponentSpace) -> np.ndarray:
    """[2] standard deviations over all components of the sites that the target is in."""
    sites = _site_of(space, target.family)
    out: np.ndarray = features[np.isin(sites, sites[target.index])].std(0)
    return out


def _site_of(space: ComponentSpace, family: str) -> np.ndarray:
    """[components] index of each one's site."""
    sizes = [site.experts if family == "experts" else site.neurons for site in space.sites]
    return np.repeat(np.arange(len(sizes)), sizes)
