"""How the counts of a model's workers come together."""

from collections.abc import Sequence

import numpy as np

from sparcom.components import ComponentSpace, Shard
from sparcom.counting.counted import Counted
from sparcom.counting.magnitudes import EXPERTS, NEURONS, Magnitudes
from sparcom.errors import CountError


def merge_counts(shards: Sequence[Shard], parts: Sequence[Counted]) -> Counted:
    """The counts of some instructions, from what each worker has counted of them.

    shards: what each worker counts; parts: its counts, for the same instructions.
    Raises CountError if workers disagree, or if the routed counts of all of them do not add up: a
    worker that holds some of a layer's experts cannot prove that alone.
    """
    space, first = shards[0].space, parts[0]
    if len(shards) == 1:  # its own conservation is the proof
        return first
    n = len(first.ids)
    neurons = np.zeros((n, space.neurons), np.int32)
    experts = np.full((n, space.experts), -1, np.int32)
    signs = None if first.signs is None else np.zeros((2, *neurons.shape), np.int32)
    magnitudes = None if first.magnitudes is None else Magnitudes.empty(
        n, space.neurons, space.experts
    )  # fmt: skip
    for worker, (shard, part) in enumerate(zip(shards, parts, strict=True)):
        shard.put_neurons(part.neurons, neurons)
        if signs is not None and part.signs is not None:
            for half, whole in zip(part.signs, signs, strict=True):
                shard.put_neurons(half, whole)
        at = shard.expert_indices()
        known = experts[:, at]
        wrong = ((known >= 0) & (known != part.experts)).any(1)
        if wrong.any():
            raise CountError(
                f"worker {worker}: its routed counts of instruction {first.ids[wrong.argmax()]} "
                "differ from those of another worker that holds the same experts"
            )
        experts[:, at] = part.experts
        if magnitudes is not None and part.magnitudes is not None:
            for name in NEURONS:
                shard.put_neurons(getattr(part.magnitudes, name), getattr(magnitudes, name))
            for name in EXPERTS:
                getattr(magnitudes, name)[:, at] = getattr(part.magnitudes, name)
    merged = Counted(first.ids, first.tokens, neurons, experts, signs, magnitudes)
    _check_routed(space, merged)
    return merged


def _check_routed(space: ComponentSpace, counted: Counted) -> None:
    """sum over e of r_je(I) == k * T(I) at every routed site."""
    for site, start in zip(space.sites, space.expert_offsets, strict=False):
        total = counted.experts[:, start : start + site.experts].sum(1, dtype=np.int64)
        wrong = total != site.top_k * counted.tokens
        if wrong.any():
            row = int(wrong.argmax())
            raise CountError(
                f"conservation: the workers' rows of {site.name} for instruction "
                f"{counted.ids[row]} add up to {total[row]}, expected "
                f"{site.top_k * counted.tokens[row]}"
            )
