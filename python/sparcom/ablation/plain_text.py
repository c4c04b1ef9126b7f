"""The perplexity-matched control: random sets enlarged until plain text suffers as much.

A set that harms every text alike also harms every category. Beside it a target shows what it does
to instructions beyond that.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np

from sparcom.ablation.scoring import Effects
from sparcom.ablation.target import Target
from sparcom.components import ComponentSpace

RECORDS, TOKENS = 8, 96
"""Records of the bundled plain text, and the first tokens of each, whose loss is measured."""
_HALVINGS = 3
_LARGEST = 1 << 10  # times the target's size


@dataclass(frozen=True)
class PlainControl:
    """Random sets that harm plain text as much as a target does.

    rise: nats per token by which the target raises the loss of plain text; random_rise: the sets'
        mean. sets: how many; size: mean number of components. effects: [sets, n].
    """

    rise: float
    random_rise: float
    sets: int
    size: float
    effects: Effects


def enlarged(
    target: Target,
    space: ComponentSpace,
    rise: Callable[[Target], float],
    wanted: float,
    rng: np.random.Generator,
) -> tuple[Target, float] | None:
    """(a random set that raises plain text's loss by about `wanted`, by how much it does so).

    The set starts with as many components of each site as the target has, none of its own, and
    keeps these proportions while it doubles; then the step is halved `_HALVINGS` times.
    rise: set -> nats per token. None if no set is large enough, or `wanted` is not above 0.
    """
    order, counts = _pools(target, space, rng)
    if wanted <= 0:
        return None

    def at(scale: float) -> Target:
        parts = [pool[: ceil(n * scale)] for pool, n in zip(order, counts, strict=True)]
        return Target(f"plain {target.name}", target.family, np.sort(np.concatenate(parts)))

    tried: dict[float, float] = {}
    scale, largest = 1.0, max(len(pool) / n for pool, n in zip(order, counts, strict=True))
    while (found := rise(at(scale))) < wanted:
        tried[scale] = found
        if scale >= min(largest, _LARGEST):
            return None
        scale *= 2
    tried[scale] = found
    low, high = (scale / 2, scale) if scale > 1 else (scale, scale)
    for _ in range(_HALVINGS if high > low else 0):
        middle = (low + high) / 2
        found = tried[middle] = rise(at(middle))
        low, high = (middle, high) if found < wanted else (low, middle)
    best = min(tried, key=lambda one: abs(tried[one] - wanted))
    return at(best), tried[best]


def _pools(
    target: Target, space: ComponentSpace, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[int]]:
    """(others of each site that the target is in, in random order; how many the target has)."""
    offsets = space.expert_offsets if target.family == "experts" else space.neuron_offsets
    order, counts = [], []
    for start, stop in pairwise(offsets):
        inside = target.index[(target.index >= start) & (target.index < stop)]
        if len(inside):
            order.append(rng.permutation(np.setdiff1d(np.arange(start, stop), inside)))
            counts.append(len(inside))
    return order, counts
