"""From counts to sets: instruction-specific neurons (ISN) and experts (ISE).

A *rule* says which components are in the set of an instruction:

    top:0.01         the 1 % of a group with the highest frequency (the paper's percentile)
    per-layer:0.01   the same within each layer
    fixed:0.5        frequency at least 0.5
    lift:0.01        of neurons: the 1 % of a group that fire most over a baseline (`lift`)
    lift:1.5         of experts: frequency over 1.5 times that of uniform routing, top_k / experts

The baseline of neurons is all instructions of the run, or another run, `lift:0.01@runs/plain`.

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
from sparcom.selection.lift import Baseline, select_lift
from sparcom.selection.sets import Sets

RULES = ("top", "per-layer", "fixed", "lift")
LIFT_HINT = (
    "count with another rule and --retain counts, then select again with sparcom identify RUN "
    "--rule lift:0.01"
)
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
        _parse(self.rule.partition("@")[0] if self.lifts else self.rule, at_most_1=RULES)
        _parse(self.expert_rule, at_most_1=RULES[:-1])
        if self.ties not in TIES:
            raise InputError(f"ties: expected {', '.join(TIES)}, got {self.ties!r}")

    @property
    def lifts(self) -> bool:
        """True if neurons are ranked over a baseline, which is not known while they are counted."""
        return self.rule.startswith("lift:")

    @property
    def baseline(self) -> str:
        """The run over which neurons are ranked; "": all instructions of their own."""
        return self.rule.partition("@")[2] if self.lifts else ""


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


def _parse(rule: str, at_most_1: Sequence[str] = ()) -> tuple[str, Fraction]:
    """(kind, value) of a rule. Raises InputError, naming what is allowed, if it is malformed."""
    kind, _, text = rule.partition(":")
    try:
        value = Fraction(text) if _NUMBER.fullmatch(text) else None
    except (ValueError, ZeroDivisionError):
        value = None
    too_high = value is not None and value > 1 and kind in at_most_1
    if kind not in RULES or value is None or value <= 0 or too_high:
        raise InputError(
            f"rule: expected {' or '.join(f'{k}:NUMBER' for k in RULES)} with a number over 0 "
            f"(at most 1 except for lift of experts), got {rule!r}"
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


def identify(
    counted: Counted,
    space: ComponentSpace,
    selection: Selection,
    baseline: Baseline | None = None,
) -> Sets:
    """The sets of counted instructions, selected by native kernels.

    counted: its arrays must be int32 and C-contiguous; they are read in place, never copied.
    baseline: what the rule lift ranks neurons over.

    Raises InputError if they are not, if T exceeds what int32 can count, or if lift has no
    baseline.

    >>> sets = identify(counted, space, Selection(rule="top:0.05", ties="exact"))
    """
    longest = int(counted.tokens.max(initial=0))
    if longest >= _INT32_MAX:
        raise InputError(f"identify: T must be below {_INT32_MAX}, as counts are; got {longest}")
    groups = neuron_groups(space, selection)
    if selection.lifts:
        neurons = _select_lift(counted, groups, selection, baseline)
    else:
        neurons = _select(counted.neurons, counted.tokens, groups, selection.rule, selection.ties)
    experts = _select(
        counted.experts, counted.tokens, expert_groups(space, selection), selection.expert_rule,
        selection.ties,
    )  # fmt: skip
    return Sets(
        counted.ids, counted.tokens, neurons.bits, neurons.cuts, neurons.sizes,
        experts.bits, experts.cuts, experts.sizes, space,
    )  # fmt: skip


def nominal_size(rule: str, group: Group) -> int:
    """How many components a rule asks for of a group: top, per-layer, and lift of neurons."""
    return max(1, math.ceil(_parse(rule.partition("@")[0])[1] * group.size))


def _select_lift(
    counted: Counted, groups: Sequence[Group], selection: Selection, baseline: Baseline | None
) -> Selected:
    """The neurons of every row by lift over the baseline."""
    if baseline is None:
        raise InputError(
            f"rule {selection.rule} ranks neurons over a baseline, which is known once all "
            f"instructions are counted; {LIFT_HINT}"
        )
    return select_lift(
        counted.neurons, counted.tokens, baseline, [group.slices for group in groups],
        [nominal_size(selection.rule, group) for group in groups], selection.ties,
    )  # fmt: skip


def _select(
    counts: np.ndarray, tokens: np.ndarray, groups: Sequence[Group], rule: str, ties: str
) -> Selected:
    """The sets of every row of counts [n, components]; tokens: [n] T."""
    kind, value = _parse(rule)
    slices = [group.slices for group in groups]
    if kind in ("top", "per-layer"):
        sizes = [nominal_size(rule, group) for group in groups]
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
