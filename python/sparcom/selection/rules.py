"""From counts to sets: instruction-specific neurons (ISN) and experts (ISE).

A *rule* says which components are in the set of an instruction:

    top:0.01         the 1 % of a group with the highest frequency (the paper's percentile)
    per-layer:0.01   the same within each layer
    fixed:0.5        frequency at least 0.5
    lift:1.5         experts only: frequency over 1.5 times that of uniform routing, top_k / experts

A *group* is what is ranked together: the neurons of one kind of site (dense, routed, shared), or
all of them where `pool` is set. All frequencies of an instruction share the denominator T, so
ranking frequencies is ranking counts, which are integers: the cut is found by histogram, exactly.
p has at most T + 1 values, so a cut falls into a group of ties; `ties` says what becomes of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from sparcom.components import ComponentSpace
from sparcom.counting.counted import Counted
from sparcom.errors import InputError
from sparcom.selection.sets import Sets

TIES = ("inclusive", "exclusive", "exact")


@dataclass(frozen=True)
class Selection:
    """How sets are selected.

    rule: for neurons; expert_rule: for routed experts (module docstring).
    ties: "inclusive" (all tied at the cut), "exclusive" (none of them), "exact" (as many as fill
        the nominal size, in the order of a fixed hash, so that no layer is favoured).
    pool: rank the neurons of all kinds of site together (the paper's reading).
    """

    rule: str = "top:0.01"
    expert_rule: str = "top:0.1"
    ties: str = "inclusive"
    pool: bool = False

    def __post_init__(self) -> None:
        _parse(self.rule, ("top", "per-layer", "fixed"))
        _parse(self.expert_rule, ("top", "per-layer", "fixed", "lift"))
        if self.ties not in TIES:
            raise InputError(f"ties: expected {', '.join(TIES)}, got {self.ties!r}")


@dataclass(frozen=True)
class Group:
    """What is ranked together: flat ranges of one index, and routing odds for `lift`."""

    name: str
    slices: tuple[slice, ...]
    uniform: Fraction = Fraction(0)

    @property
    def size(self) -> int:
        return sum(s.stop - s.start for s in self.slices)


def _parse(rule: str, kinds: Sequence[str]) -> tuple[str, Fraction]:
    """`(kind, value)` of a rule text; raises InputError naming what is allowed."""
    kind, _, text = rule.partition(":")
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = None
    highest = None if kind == "lift" else 1
    if kind not in kinds or value is None or value <= 0 or (highest and value > highest):
        raise InputError(
            f"rule: expected {' or '.join(f'{k}:NUMBER' for k in kinds)} with a number over 0 "
            f"(at most 1 but for lift), got {rule!r}"
        )
    return kind, value


def neuron_groups(space: ComponentSpace, selection: Selection) -> list[Group]:
    """The groups of neurons that a selection ranks."""
    kinds = (None,) if selection.pool else space.kinds
    per_layer = selection.rule.startswith("per-layer")
    groups = []
    for kind in kinds:
        slices = space.neuron_slices(kind)
        name = kind or "all"
        if not per_layer:
            groups.append(Group(name, tuple(slices)))
            continue
        layers: dict[int, list[slice]] = {}
        for part in slices:
            layers.setdefault(int(space.neuron_layers[part.start]), []).append(part)
        groups += [Group(f"{name}.layer{j}", tuple(parts)) for j, parts in layers.items()]
    return groups


def expert_groups(space: ComponentSpace, selection: Selection) -> list[Group]:
    """The groups of routed experts that a selection ranks; none for a dense model."""
    sites = [
        (site, slice(int(a), int(b)))
        for site, a, b in zip(
            space.sites, space.expert_offsets, space.expert_offsets[1:], strict=False
        )
        if site.experts
    ]
    if not sites:
        return []
    if selection.expert_rule.startswith("top") or selection.expert_rule.startswith("fixed"):
        return [Group("experts", tuple(part for _, part in sites))]
    return [
        Group(f"experts.layer{site.layer}", (part,), Fraction(site.top_k, site.experts))
        for site, part in sites
    ]


def identify(counted: Counted, space: ComponentSpace, selection: Selection) -> Sets:
    """The sets of counted instructions.

    >>> sets = identify(counted, space, Selection(rule="top:0.05", ties="exact"))
    """
    neurons, cuts, sizes = _select_all(
        counted.neurons, counted.tokens, neuron_groups(space, selection), selection.rule,
        selection.ties,
    )  # fmt: skip
    experts, expert_cuts, expert_sizes = _select_all(
        counted.experts, counted.tokens, expert_groups(space, selection), selection.expert_rule,
        selection.ties,
    )  # fmt: skip
    return Sets(
        counted.ids, counted.tokens, neurons, cuts, sizes, experts, expert_cuts, expert_sizes, space
    )


def _select_all(
    counts: np.ndarray, tokens: np.ndarray, groups: list[Group], rule: str, ties: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(packed sets, cuts, sizes) of every row of counts [n, components]."""
    kind, value = _parse(rule, ("top", "per-layer", "fixed", "lift"))
    n = len(counts)
    chosen = np.zeros(counts.shape, dtype=bool)
    cuts = np.zeros((n, len(groups)), np.int32)
    sizes = np.zeros((n, len(groups)), np.int32)
    for g, group in enumerate(groups):
        hashes = _group_hashes(group) if ties == "exact" else None
        for row in range(n):
            values = np.concatenate([counts[row, s] for s in group.slices])
            total = int(tokens[row])
            if kind in ("top", "per-layer"):
                size = max(1, math.ceil(value * group.size))
                mask, cut = select_top(values, size, ties, hashes)
            else:
                cut = _fixed_cut(kind, value, total, group)
                mask = values >= cut
            cuts[row, g], sizes[row, g] = cut, int(mask.sum())
            start = 0
            for part in group.slices:
                chosen[row, part] = mask[start : start + part.stop - part.start]
                start += part.stop - part.start
    return np.packbits(chosen, axis=1, bitorder="little"), cuts, sizes


def _fixed_cut(kind: str, value: Fraction, total: int, group: Group) -> int:
    """The smallest count that a threshold on the frequency selects, exactly."""
    if kind == "fixed":  # count / T >= value
        return max(1, math.ceil(value * total))
    return math.floor(value * group.uniform * total) + 1  # count / T > value * top_k / experts


def select_top(
    values: np.ndarray, size: int, ties: str, hashes: np.ndarray | None = None
) -> tuple[np.ndarray, int]:
    """(mask, cut) of the `size` highest counts.

    values: [components] int32 counts; a count of 0 is never selected.
    hashes: [components] uint64, the order among ties for ties="exact".
    cut: what a count must reach; where nothing is in the set, one more than the highest count.
    """
    histogram = np.bincount(values)
    at_least = np.cumsum(histogram[::-1])[::-1]  # at_least[c]: components with count >= c
    reaching = np.flatnonzero(at_least >= size)
    nominal = int(reaching[-1]) if len(reaching) else 0  # the size-th highest count
    cut = nominal + 1 if ties == "exclusive" else max(1, nominal)
    mask = values >= cut
    if ties == "exact" and mask.sum() > size:
        tied = np.flatnonzero(values == cut)
        excess = int(mask.sum()) - size
        mask[tied[np.argsort(hashes[tied], kind="stable")[len(tied) - excess :]]] = False
    return mask, cut


def _group_hashes(group: Group) -> np.ndarray:
    return index_hash(np.concatenate([np.arange(s.start, s.stop) for s in group.slices]))


def index_hash(index: np.ndarray) -> np.ndarray:
    """splitmix64 of component indices, uint64: a fixed order that favours no layer."""
    with np.errstate(over="ignore"):
        z = index.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
