"""What can be counted in a model, and where each count lies.

A model's FFN activations exist at *sites* (one per dense MLP, shared expert or bank of routed
experts). `ComponentSpace` lays all neurons of all sites out in one flat index, site after site,
expert after expert, and all routed experts in a second one; every stored vector and bit set uses
these two indices. `LocalSite` is the part of a site that one worker of a parallel model holds, and
`Shard` all of its parts, placed in the whole space.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sparcom.errors import InputError

KINDS = ("dense", "routed", "shared")


@dataclass(frozen=True)
class Site:
    """One place in a model where an FFN activation exists.

    kind: "dense" | "routed" | "shared".
    layer: index of the decoder layer, from 0.
    width: neurons per expert (routed) or of the MLP (dense, shared).
    activation: name of f, with its parameters (`sparcom.counting.activations`).
    gated: whether f(gate) is multiplied by an up projection.
    experts: number of routed experts; 0 for dense and shared sites.
    top_k: experts per token; 0 for dense and shared sites.
    """

    kind: str
    layer: int
    width: int
    activation: str
    _: KW_ONLY
    gated: bool = True
    experts: int = 0
    top_k: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"Site: kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if (self.kind == "routed") != (self.experts > 0):
            raise InputError(
                f"Site: only routed sites have experts; got {self.experts} at {self.name}"
            )

    @property
    def name(self) -> str:
        """`layer3.dense`: how messages, traces and tables call this site."""
        return f"layer{self.layer}.{self.kind}"

    @property
    def bins(self) -> int:
        """Bins that one slot (one instruction) takes at this site: one per expert."""
        return max(self.experts, 1)

    @property
    def neurons(self) -> int:
        return self.bins * self.width


@dataclass(frozen=True)
class ComponentSpace:
    """All neurons and all routed experts of a model, in two flat indices.

    Neuron `(site, expert, unit)` has index `neuron_offsets[site] + expert * width + unit`;
    expert `(site, expert)` has index `expert_offsets[site] + expert`.
    """

    sites: tuple[Site, ...]

    def __post_init__(self) -> None:
        names = [site.name for site in self.sites]
        if len(set(names)) != len(names):
            raise InputError(f"ComponentSpace: each site once, got {names}")

    @cached_property
    def neuron_offsets(self) -> np.ndarray:
        """[sites + 1] int64: first neuron of each site, then the number of neurons."""
        return np.cumsum([0, *(site.neurons for site in self.sites)], dtype=np.int64)

    @cached_property
    def expert_offsets(self) -> np.ndarray:
        """[sites + 1] int64: first routed expert of each site, then the number of experts."""
        return np.cumsum([0, *(site.experts for site in self.sites)], dtype=np.int64)

    @property
    def neurons(self) -> int:
        return int(self.neuron_offsets[-1])

    @property
    def experts(self) -> int:
        return int(self.expert_offsets[-1])

    @property
    def layers(self) -> int:
        """Decoder layers up to the last one with a site; some between may have no FFN."""
        return 1 + max((site.layer for site in self.sites), default=-1)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of site that this model has, in the order of `KINDS`."""
        return tuple(kind for kind in KINDS if any(s.kind == kind for s in self.sites))

    def neuron_slices(self, kind: str | None = None) -> list[slice]:
        """Flat neuron ranges of the sites of one kind (None: of all), in site order."""
        return [
            slice(int(start), int(stop))
            for site, start, stop in zip(
                self.sites, self.neuron_offsets, self.neuron_offsets[1:], strict=False
            )
            if kind is None or site.kind == kind
        ]

    @cached_property
    def neuron_layers(self) -> np.ndarray:
        """[neurons] int16: layer of each neuron."""
        return np.repeat([s.layer for s in self.sites], [s.neurons for s in self.sites]).astype(
            np.int16
        )

    @cached_property
    def neuron_experts(self) -> np.ndarray:
        """[neurons] int64: flat expert index of each neuron; -1 outside routed sites."""
        parts = [
            np.repeat(np.arange(s.experts) + base, s.width) if s.experts else np.full(s.neurons, -1)
            for s, base in zip(self.sites, self.expert_offsets, strict=False)
        ]
        return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)

    def describe_neuron(self, index: int) -> tuple[int, str, int, int]:
        """`(layer, kind, expert or -1, unit)` of a flat neuron index."""
        if not 0 <= index < self.neurons:
            raise InputError(f"neuron index must be in [0, {self.neurons}), got {index}")
        at = int(np.searchsorted(self.neuron_offsets, index, side="right")) - 1
        site, rest = self.sites[at], index - int(self.neuron_offsets[at])
        expert = rest // site.width if site.experts else -1
        return site.layer, site.kind, expert, rest % site.width

    def neuron_index(self, layer: int, kind: str, expert: int, unit: int) -> int:
        """Inverse of `describe_neuron`."""
        for site, base in zip(self.sites, self.neuron_offsets, strict=False):
            if (site.layer, site.kind) == (layer, kind):
                known = range(site.experts) if site.experts else (-1,)
                if not (0 <= unit < site.width and expert in known):
                    break
                return int(base) + max(expert, 0) * site.width + unit
        raise InputError(f"no neuron (layer {layer}, {kind}, expert {expert}, unit {unit})")

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(site) for site in self.sites]

    @classmethod
    def from_json(cls, sites: Iterable[dict[str, Any]]) -> "ComponentSpace":
        return cls(tuple(Site(**site) for site in sites))


@dataclass(frozen=True)
class LocalSite:
    """The part of a site that one worker holds: a range of units, some of the experts, or all.

    site: the whole site.
    units: [start, stop) of its neurons, of each expert (tensor parallel).
    experts: ids of the worker's experts, in its own order (expert parallel); () if the site has
        none. A worker that holds no expert of a routed site has no LocalSite of it.

    >>> LocalSite(Site("dense", 3, 11008, "silu"), (0, 5504)).as_counted.width
    5504
    """

    site: Site
    units: tuple[int, int]
    experts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.experts) != bool(self.site.experts):
            raise InputError(
                f"LocalSite: {self.site.name} has {self.site.experts} experts, but the worker's "
                f"part of it names {len(self.experts)}; leave out a site of which it has none"
            )

    @property
    def as_counted(self) -> Site:
        """The site as this worker counts it: with its own width and number of experts."""
        width = self.units[1] - self.units[0]
        return replace(self.site, width=width, experts=len(self.experts))

    @property
    def partial(self) -> bool:
        """True if other workers hold experts of this site."""
        return len(self.experts) < self.site.experts

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "LocalSite":
        start, stop = data["units"]
        return cls(Site(**data["site"]), (start, stop), tuple(data["experts"]))


@dataclass(frozen=True)
class Shard:
    """What one worker of a model counts, and where it belongs in the whole `ComponentSpace`.

    sites: the worker's parts, in the order in which it counts them.
    """

    space: ComponentSpace
    sites: tuple[LocalSite, ...]

    def __post_init__(self) -> None:
        for local in self.sites:
            if local.site not in self.space.sites:
                raise InputError(f"Shard: {local.site.name} is no site of the model")

    def neuron_indices(self) -> np.ndarray:
        """[local neurons] int64: flat index in the whole space of each local neuron, in order."""
        parts = []
        for local, at in self._placed():
            units = np.arange(*local.units, dtype=np.int64)
            experts = np.asarray(local.experts or (0,), dtype=np.int64)
            first = int(self.space.neuron_offsets[at])
            parts.append((first + experts[:, None] * local.site.width + units).reshape(-1))
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def put_neurons(self, part: np.ndarray, whole: np.ndarray) -> None:
        """whole[:, self.neuron_indices()] = part, in blocks.

        part: [n, local neurons]; whole: [n, neurons of the space], C-contiguous.
        """
        start = 0
        for local, at in self._placed():
            site, first = local.site, int(self.space.neuron_offsets[at])
            experts, width = local.experts or (0,), local.as_counted.width
            stop = start + len(experts) * width
            target = whole[:, first : first + site.neurons]
            target = target.reshape(len(whole), site.bins, site.width)
            target[:, list(experts), slice(*local.units)] = part[:, start:stop].reshape(
                len(part), len(experts), width
            )
            start = stop

    def expert_indices(self) -> np.ndarray:
        """[local experts] int64: flat index in the whole space of each local routed expert."""
        parts = [
            int(self.space.expert_offsets[at]) + np.asarray(local.experts, dtype=np.int64)
            for local, at in self._placed()
            if local.experts
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def _placed(self) -> Iterator[tuple[LocalSite, int]]:
        """Each local site, and the index of its site in the space."""
        index = {site: at for at, site in enumerate(self.space.sites)}
        return ((local, index[local.site]) for local in self.sites)


def shards_of(workers: Sequence[Sequence[LocalSite]]) -> list[Shard]:
    """Each worker's shard of one space, whose sites are those that the workers name.

    The sites lie by layer, then by kind in the order of `KINDS`, as in every engine.
    """
    sites = {local.site for worker in workers for local in worker}
    space = ComponentSpace(tuple(sorted(sites, key=site_order)))
    return [Shard(space, tuple(worker)) for worker in workers]


def site_order(site: Site) -> tuple[int, int]:
    """What the sites of a model are sorted by."""
    return site.layer, KINDS.index(site.kind)


def merge_shards(shards: Sequence[Shard]) -> ComponentSpace:
    """The space that the shards cover, each neuron by exactly one of them.

    Raises InputError if a neuron belongs to two shards or to none.
    """
    if not shards:
        raise InputError("merge_shards: at least one shard, got none")
    space = shards[0].space
    owners = np.zeros(space.neurons, np.int64)
    for shard in shards:
        if shard.space != space:
            raise InputError("merge_shards: the shards belong to different models")
        np.add.at(owners, shard.neuron_indices(), 1)
    if (owners != 1).any():
        at = int(np.flatnonzero(owners != 1)[0])
        raise InputError(
            f"merge_shards: neuron {space.describe_neuron(at)} belongs to {owners[at]} shards, "
            "expected 1"
        )
    return space
