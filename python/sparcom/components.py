"""What can be counted in a model, and where each count lies.

A model's FFN activations exist at *sites* (one per dense MLP, shared expert or bank of routed
experts). `ComponentSpace` lays all neurons of all sites out in one flat index, site after site,
expert after expert, and all routed experts in a second one; every stored vector and bit set uses
these two indices. `Shard` says which part of a space one worker of a parallel model holds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property

import numpy as np

from sparcom.errors import InputError

KINDS = ("dense", "routed", "shared")


@dataclass(frozen=True)
class Site:
    """One place in a model where an FFN activation exists.

    kind: "dense" | "routed" | "shared".
    layer: index of the decoder layer, from 0.
    width: neurons per expert (routed) or of the MLP (dense, shared).
    activation: name of f, a key of `sparcom.counting.ops.ACTIVATIONS`.
    gated: whether f(gate) is multiplied by an up projection.
    experts: number of routed experts; 0 for dense and shared sites.
    top_k: experts per token; 0 for dense and shared sites.
    """

    kind: str
    layer: int
    width: int
    activation: str
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
    def neuron_kinds(self) -> np.ndarray:
        """[neurons] int8: index into `KINDS` of each neuron's site."""
        kinds = [KINDS.index(s.kind) for s in self.sites]
        return np.repeat(kinds, [s.neurons for s in self.sites]).astype(np.int8)

    @cached_property
    def neuron_experts(self) -> np.ndarray:
        """[neurons] int64: flat expert index of each neuron; -1 outside routed sites."""
        parts = [
            np.repeat(np.arange(s.experts) + base, s.width) if s.experts else np.full(s.neurons, -1)
            for s, base in zip(self.sites, self.expert_offsets, strict=False)
        ]
        return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)

    @cached_property
    def expert_layers(self) -> np.ndarray:
        """[experts] int16: layer of each routed expert."""
        return np.repeat([s.layer for s in self.sites], [s.experts for s in self.sites]).astype(
            np.int16
        )

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

    def to_json(self) -> list[dict]:
        return [asdict(site) for site in self.sites]

    @classmethod
    def from_json(cls, sites: Iterable[dict]) -> "ComponentSpace":
        return cls(tuple(Site(**site) for site in sites))


@dataclass(frozen=True)
class ShardSite:
    """The part of one site that a worker holds: a range of units, a list of experts, or all.

    site: index into the space's sites.
    units: [start, stop) of the neurons of every held expert (tensor parallel).
    experts: held experts, in the worker's own order (expert parallel); () where the site has none.
    """

    site: int
    units: tuple[int, int]
    experts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Shard:
    """What one worker of a model counts, and where it belongs in the whole `ComponentSpace`.

    A routed site of which the worker holds no expert has no part.
    """

    space: ComponentSpace
    parts: tuple[ShardSite, ...] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        for part in self.parts:
            site = self.space.sites[part.site]
            if bool(part.experts) != bool(site.experts):
                raise InputError(
                    f"Shard: {site.name} has {site.experts} experts, but its part names "
                    f"{len(part.experts)}; leave out a site that is not held"
                )

    @classmethod
    def whole(cls, space: ComponentSpace) -> "Shard":
        """The shard of a worker that holds everything."""
        return cls(
            space,
            tuple(
                ShardSite(i, (0, site.width), tuple(range(site.experts)))
                for i, site in enumerate(space.sites)
            ),
        )

    def local_sites(self) -> list[Site]:
        """The sites as this worker sees them: its own width and its own number of experts."""
        return [
            replace(
                self.space.sites[part.site],
                width=part.units[1] - part.units[0],
                experts=len(part.experts),
            )
            for part in self.parts
        ]

    def neuron_indices(self) -> np.ndarray:
        """[local neurons] int64: flat index in the whole space of each local neuron, in order."""
        parts = []
        for p in self.parts:
            site, base = self.space.sites[p.site], int(self.space.neuron_offsets[p.site])
            units = np.arange(*p.units, dtype=np.int64)
            experts = np.asarray(p.experts if site.experts else (0,), dtype=np.int64)
            parts.append((base + experts[:, None] * site.width + units).reshape(-1))
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def put_neurons(self, local: np.ndarray, whole: np.ndarray) -> None:
        """whole[:, self.neuron_indices()] = local, in blocks.

        local: [n, local neurons]; whole: [n, neurons of the space], C-contiguous.
        """
        start = 0
        for part in self.parts:
            site, base = self.space.sites[part.site], int(self.space.neuron_offsets[part.site])
            held = part.experts if site.experts else (0,)
            units = part.units[1] - part.units[0]
            block = local[:, start : start + len(held) * units].reshape(-1, len(held), units)
            start += len(held) * units
            target = whole[:, base : base + site.neurons].reshape(-1, site.bins, site.width)
            target[:, list(held), slice(*part.units)] = block

    def expert_indices(self) -> np.ndarray:
        """[local experts] int64: flat index in the whole space of each local routed expert."""
        parts = [
            int(self.space.expert_offsets[p.site]) + np.asarray(p.experts, dtype=np.int64)
            for p in self.parts
            if p.experts
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def merge_shards(shards: Sequence[Shard]) -> ComponentSpace:
    """The space that the shards cover, each neuron by exactly one of them.

    Raises InputError where a neuron is held twice or by nobody.
    """
    if not shards:
        raise InputError("merge_shards: at least one shard, got none")
    space = shards[0].space
    held = np.zeros(space.neurons, np.int64)
    for shard in shards:
        if shard.space != space:
            raise InputError("merge_shards: the shards belong to different models")
        np.add.at(held, shard.neuron_indices(), 1)
    if (held != 1).any():
        at = int(np.flatnonzero(held != 1)[0])
        raise InputError(
            f"merge_shards: neuron {space.describe_neuron(at)} is held by {held[at]} shards, not 1"
        )
    return space
