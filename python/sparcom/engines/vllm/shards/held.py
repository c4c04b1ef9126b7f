"""What the workers of a vLLM engine hold of a model, and how their counts come together."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from sparcom.components import KINDS, ComponentSpace, Shard, ShardSite, Site
from sparcom.counting.counted import Counted
from sparcom.errors import CountError


@dataclass(frozen=True)
class HeldSite:
    """A site as one worker holds it.

    site: the whole site; units: [start, stop) of its neurons (of each expert) that this worker
        holds; experts: ids of the experts that it holds, in its own order.
    apart: whether gate and up are multiplied outside the activation module, so that what it gives
        is f(gate), and not h.
    """

    site: Site
    units: tuple[int, int]
    experts: tuple[int, ...] = ()
    apart: bool = False

    @property
    def local(self) -> Site:
        """The site as this worker counts it."""
        width = self.units[1] - self.units[0]
        return replace(self.site, width=width, experts=len(self.experts))

    @property
    def partial(self) -> bool:
        """Whether other workers hold experts of this site."""
        return len(self.experts) < self.site.experts

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "HeldSite":
        start, stop = data["units"]
        return cls(Site(**data["site"]), (start, stop), tuple(data["experts"]), data["apart"])


def place_of(site: Site) -> tuple[int, int]:
    """What sites are sorted by: the order of the transformers engine."""
    return site.layer, KINDS.index(site.kind)


def assemble(workers: Sequence[Sequence[HeldSite]]) -> tuple[ComponentSpace, list[Shard]]:
    """The whole space, and each worker's shard of it, from what all workers hold."""
    sites = {held.site.name: held.site for worker in workers for held in worker}
    order = sorted(sites.values(), key=place_of)
    space = ComponentSpace(tuple(order))
    return space, [shard_of(space, worker) for worker in workers]


def shard_of(space: ComponentSpace, worker: Sequence[HeldSite]) -> Shard:
    """What a worker holds of the whole space."""
    at = {site.name: i for i, site in enumerate(space.sites)}
    return Shard(space, tuple(ShardSite(at[h.site.name], h.units, h.experts) for h in worker))


def merge_parts(shards: Sequence[Shard], parts: Sequence[Counted]) -> Counted:
    """The counts of some instructions, from what each worker has of them.

    shards: what each worker holds; parts: its counts, for the same instructions.
    Raises CountError where workers disagree, or where the routed counts of all of them do not add
    up: a worker that holds some of a layer's experts cannot prove that alone.
    """
    space, first = shards[0].space, parts[0]
    if len(shards) == 1:  # its own conservation is the proof
        return first
    n = len(first.ids)
    neurons = np.zeros((n, space.neurons), np.int32)
    experts = np.full((n, space.experts), -1, np.int32)
    for worker, (shard, part) in enumerate(zip(shards, parts, strict=True)):
        shard.put_neurons(part.neurons, neurons)
        at = shard.expert_indices()
        known = experts[:, at]
        wrong = ((known >= 0) & (known != part.experts)).any(1)
        if wrong.any():
            raise CountError(
                f"worker {worker}: its routed counts of instruction {first.ids[wrong.argmax()]} "
                "differ from those of another worker that holds the same experts"
            )
        experts[:, at] = part.experts
    for site, start in zip(space.sites, space.expert_offsets, strict=False):
        total = experts[:, start : start + site.experts].sum(1, dtype=np.int64)
        wrong = total != site.top_k * first.tokens
        if wrong.any():
            row = int(wrong.argmax())
            raise CountError(
                f"conservation: the workers' rows of {site.name} for instruction {first.ids[row]} "
                f"add up to {total[row]}, expected {site.top_k * first.tokens[row]}"
            )
    return Counted(first.ids, first.tokens, neurons, experts)
