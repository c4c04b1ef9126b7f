"""The neuron rule `lift`: neurons that fire more often than they do over a baseline.

The percentile of c / T selects neurons that fire always, whatever the text. Lift ranks by

    log odds(c, T) - log odds(C, N),    odds(c, T) = (c + 1/2) / (T - c + 1/2)

with C of N tokens the baseline's, so that a neuron is compared with itself elsewhere. The halves
keep the odds finite at 0 and T. A neuron that does not fire, or no more often than over the
baseline, is in no set. Ranks are those of the odds' ratio, in 32 bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparcom.errors import InputError
from sparcom.selection.bits import Selected, select


@dataclass(frozen=True)
class Baseline:
    """What neurons do elsewhere. counts: [neurons] int64, summed c; tokens: summed T."""

    counts: np.ndarray
    tokens: int


def baseline_of(counts: np.ndarray, tokens: np.ndarray) -> Baseline:
    """The baseline of counted instructions. counts: [n, neurons]; tokens: [n] T."""
    return Baseline(counts.sum(0, dtype=np.int64), int(tokens.sum()))


def odds_ratio(counts: np.ndarray, tokens: int, baseline: Baseline) -> np.ndarray:
    """[neurons] float64: odds(c, T) / odds(C, N), whose log is the lift, of one instruction.

    counts: [neurons] c; tokens: T. Both products are exact, so that it is 1 for equal odds.

    >>> odds_ratio(np.array([2, 3]), 4, Baseline(np.array([10, 1]), 20)).tolist()
    [1.0, 30.333333333333332]
    """
    fired, elsewhere = np.asarray(counts, np.float64), baseline.counts.astype(np.float64)
    above = (fired + 0.5) * (baseline.tokens - elsewhere + 0.5)
    return above / ((tokens - fired + 0.5) * (elsewhere + 0.5))


def select_lift(
    counts: np.ndarray,
    tokens: np.ndarray,
    baseline: Baseline,
    groups: Sequence[Sequence[slice]],
    sizes: Sequence[int],
    ties: str,
) -> Selected:
    """The neurons of highest lift, of every row and group; arguments as of `bits.select`.

    tokens: [rows] T. The cuts are the least count of a member: ranks are not those of counts.
    Raises InputError if the baseline is of other neurons.
    """
    if baseline.counts.shape != counts.shape[1:]:
        raise InputError(
            f"lift: the baseline must be of {counts.shape[1]} neurons, got "
            f"{baseline.counts.shape[0]}; count it with the same model"
        )
    keys = np.zeros(counts.shape, np.int32)
    for row, total in enumerate(tokens.tolist()):
        ratio = odds_ratio(counts[row], total, baseline)
        lifted = np.where((counts[row] > 0) & (ratio > 1), ratio, 0).astype(np.float32)
        keys[row] = lifted.view(np.int32)  # floats over 0 are ordered as their bits are
    found = select(keys, sizes=sizes, groups=groups, ties=ties)
    return Selected(found.bits, _least_counts(counts, found.bits, groups), found.sizes)


def _least_counts(
    counts: np.ndarray, bits: np.ndarray, groups: Sequence[Sequence[slice]]
) -> np.ndarray:
    """[rows, groups] int32: the least count of a member; without one, one over the highest."""
    out = np.zeros((len(counts), len(groups)), np.int32)
    for row, (values, packed) in enumerate(zip(counts, bits, strict=True)):
        member = np.unpackbits(packed, count=len(values), bitorder="little").astype(bool)
        for at, slices in enumerate(groups):
            of = np.concatenate([values[part] for part in slices])
            held = of[np.concatenate([member[part] for part in slices])]
            out[row, at] = held.min() if len(held) else of.max(initial=0) + 1
    return out
