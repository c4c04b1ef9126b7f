"""Controls: random sets that are matched with a target."""

import numpy as np

from sparcom.ablation.target import Target, Usage
from sparcom.components import ComponentSpace
from sparcom.errors import InputError

NEAREST = 8


def matched_random(
    target: Target, known: Usage, space: ComponentSpace, rng: np.random.Generator
) -> Target:
    """A random set with as many components of each site, of like frequency, none of the target's.

    Each component is replaced by a random one of the `NEAREST` of nearest frequency that are free
    in its site. Raises InputError if a site has too few others.
    """
    offsets = space.expert_offsets if target.family == "experts" else space.neuron_offsets
    drawn = []
    for site, start, stop in zip(space.sites, offsets, offsets[1:], strict=False):
        inside = target.index[(target.index >= start) & (target.index < stop)]
        free = np.setdiff1d(np.arange(start, stop), inside)
        if len(free) < len(inside):
            raise InputError(
                f"ablate: target {target.name!r} holds {len(inside)} of {stop - start} "
                f"{target.family} of {site.name}: too few are left to draw matched random ones; "
                "take a smaller one"
            )
        free = free[np.argsort(known.frequency[free], kind="stable")]
        for one in rng.permutation(inside):
            distance = np.abs(known.frequency[free] - known.frequency[one])
            at = rng.choice(np.argsort(distance, kind="stable")[:NEAREST])
            drawn.append(free[at])
            free = np.delete(free, at)
    return Target(f"random for {target.name}", target.family, np.sort(np.array(drawn, np.int64)))
