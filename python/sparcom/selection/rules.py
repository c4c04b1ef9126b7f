"""From counts to sets: instruction-specific neurons (ISN) and experts (ISE).

A *rule* says which components are in the set of an instruction:

    top:0.01         the 1 % of a group with the highest frequency (the paper's percentile)
    per-layer:0.01   the same within each layer
    fixed:0.5        frequency at least 0.5
    lift:1.5         experts only: frequency over 1.5 times that of uniform routing, top_k / experts

A *group* is what is ranked together: the neurons of one kind of site (dense, routed, shared), or
all neurons if `pool` is set. All frequencies of an instruction have the denominator T, so ranking
frequencies is ranking counts. These are integers, so the cut is exact. p has at most T + 1 values,
so several components may lie at the cut; `ties` says which of them are selected.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from sparcom.components import ComponentSpace
from sparcom.counting.counted import Counted
from sparcom.errors import InputError
from sparcom.selection.bits import TIES, Selected, select
from sparcom.selection.sets import Sets

RULES = ("top", "per-layer", "fixed", "lift")
_INT32_MAX = 2**31 - 1
# 1e-99999999 is a fraction too, of 12 MB.
_NUMBER = re.compile(r"[0-9.]{1,20}(?:[eE][+-]?[0-9]{1,2})?|[0-9]{1,20}/[0-9]{1,20}")


@dataclass(frozen=True)
class Selection:
    """How sets are selected.

    rule: for neurons; expert_rule: for routed experts (module docstring).
    ties: "inclusive" (all components at the cut), "exclusive" (none of them), "exact" (as many as
        the nominal size leaves room for, in the order of a fixed hash, which favours no layer).
    pool: rank the neurons of all kinds of site together, as the paper does.

    Raises InputError for an unknown rule, a number out of range or an unknown `ties`.
    """

    rule: str = "top:0.01"
    expert_rule: str = "top:0.1"
    ties: str = "inclusive"
    pool: bool = False

    def __post_init__(self) -> None:
        _parse(self.rule, RULES[:-1])  # neurons have no `lift`
        _parse(self.expert_rule, RULES)
        if self.ties not in TIES:
            raise InputError(f"ties: expected {', '.join(TIES)}, got {self.ties!r}")


@dataclass(frozen=True)
class Group:
    """What is ranked together.

    slices: ranges of the flat index of neurons, or of experts.
    uniform: the frequency of an expert under uniform routing, top_k / experts, for `lift`.
    """

    name: str
    slices: tuple[slice, ...]
    uniform: Fraction = Fraction(0)

    @property
    def size(self) -> int:
        return sum(s.stop - s.start for s in self.slices)


def _parse(rule: str, kinds: Sequence[str]) -> tuple[str, Fraction]:
    """(kind, value) of a rule. Raises InputError, naming what is allowed, if it is malformed."""
    kind, _, text = rule.partition(":")
    try:
        value = Fraction(text) if _NUMBER.fullmatch(text) else None
    except (ValueError, ZeroDivisionError):
        value = None
    highest = None if kind == "lift" else 1
    if kind not in kinds or value is None or value <= 0 or (highest and value > highest):
        raise InputError(
            f"rule: expected {' or '.join(f'{k}:NUMBER' for k in kinds)} with a number over 0 "
            f"(at most 1 except for lift), got {rule!r}"
        )
    return kind, value


def neuron_groups(space: ComponentSpace, selection: Selection) -> list[Group]:
    """The groups of neurons that a selection ranks, of each kind of site one or one a layer."""
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
    """The groups of routed experts that a selection ranks: one, or one a layer; none if dense."""
    sites = [
        (site, slice(int(a), int(b)))
        for site, a, b in zip(
            space.sites, space.expert_offsets, space.expert_offsets[1:], strict=False
        )
        if site.experts
    ]
    if not sites:
        return []
    if selection.expert_rule.startswith(("top", "fixed")):
        return [Group("experts", tuple(part for _, part in sites))]
    return [
        Group(f"experts.layer{site.layer}", (part,), Fraction(site.top_k, site.experts))
        for site, part in sites
    ]


def identify(counted: Counted, space: ComponentSpace, selection: Selection) -> Sets:
    """The sets of counted instructions, selected by native kernels.

    counted: its arrays must be int32 and C-contiguous; they are read in place, never copied.

    Raises InputError if they are not, or if T exceeds what int32 can count.

    >>> sets = identify(counted, space, Selection(rule="top:0.05", ties="exact"))
    """
    longest = int(counted.tokens.max(initial=0))
    if longest >= _INT32_MAX:
        raise InputError(f"identify: T must be below {_INT32_MAX}, as counts are; got {longest}")
    neurons = _select(
        counted.neurons, counted.tokens, neuron_groups(space, selection), selection.rule,
        selection.ties,
    )  # fmt: skip
    experts = _select(
        counted.experts, counted.tokens, expert_groups(space, selection), selection.expert_rule,
        selection.ties,
    )  # fmt: skip
    return Sets(
        counted.ids, counted.tokens, neurons.bits, neurons.cuts, neurons.sizes,
        experts.bits, experts.cuts, experts.sizes, space,
    )  # fmt: skip


def _select(
    counts: np.ndarray, tokens: np.ndarray, groups: Sequence[Group], rule: str, ties: str
) -> Selected:
    """The sets of every row of counts [n, components]; tokens: [n] T."""
    kind, value = _parse(rule, RULES)
    slices = [group.slices for group in groups]
    if kind in ("top", "per-layer"):
        sizes = [max(1, math.ceil(value * group.size)) for group in groups]
        return select(counts, groups=slices, sizes=sizes, ties=ties)
    cuts = [[_cut(kind, value, int(total), group) for group in groups] for total in tokens]
    return select(
        counts, groups=slices, cuts=np.array(cuts, np.int32).reshape(len(tokens), len(groups))
    )


def _cut(kind: str, value: Fraction, total: int, group: Group) -> int:
    """The smallest count that a bound on the frequency selects, exactly; T is `total`.

    A cut that int32 cannot hold is given as the highest int32, which no count reaches.
    """
    if kind == "fixed":  # count / T >= value
        cut = max(1, math.ceil(value * total))
    else:  # lift: count / T > value * top_k / experts
        cut = math.floor(value * group.uniform * total) + 1
    return min(cut, _INT32_MAX)
