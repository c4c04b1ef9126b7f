"""How much of the category effect do length and source explain?

The category effect is the mean overlap of same-type pairs minus that of different-type pairs. Pairs
are grouped by the strata (length bin, or length bin x source) of the two; comparing within these
groups only is the regression of overlap on "same type" with one constant for every two strata.
"""

from dataclasses import dataclass

import numpy as np

from sparcom.analysis.stats.estimate import Estimate, estimate
from sparcom.analysis.stats.pair_sums import (
    Draws,
    group_sums,
    grouped_draws,
    one_hot,
    permutation_draws,
)


@dataclass(frozen=True, kw_only=True)
class Adjusted:
    """effect: Estimate, same minus different among pairs of the same two strata; the null permutes
        labels within strata; its value is None if no two strata have both sorts of pair.
    explained: Estimate, 1 - effect / raw effect, the share that the strata explain; chance: strata
        dealt out at random; its value is None if the raw effect is not positive, or there is no
        adjusted one.
    informative: share of the same-type pairs whose two strata have different-type pairs too.
    """

    effect: Estimate
    explained: Estimate
    informative: float


def adjusted_effect(
    values: np.ndarray,
    codes: np.ndarray,
    strata: np.ndarray,
    permuted: np.ndarray,
    weights: np.ndarray,
    dealt: np.ndarray,
) -> Adjusted:
    """The category effect with the strata held fixed.

    values: [n, n] symmetric pair measure; codes, strata: [n] category and stratum codes from 0.
    permuted: [draws, n] relabellings within strata; weights: [draws, n] bootstrap weights.
    dealt: [draws, n] the strata in random order, over all instructions.
    """
    groups = int(strata.max()) + 1
    point = _StratumPairs.of(values, codes, strata[None], None, groups)
    value, informative, mass = point.effect(0)
    if not np.isfinite(value):
        return Adjusted(effect=Estimate(None), explained=Estimate(None), informative=0.0)
    narrow = values.astype(np.float32)
    again = _StratumPairs.of(narrow, codes, np.broadcast_to(strata, weights.shape), weights, groups)
    unrelated = _StratumPairs.of(narrow, codes, dealt, None, groups)
    types = int(codes.max()) + 1
    null = permutation_draws(_residual(values, strata, groups), permuted, types)
    return Adjusted(
        effect=estimate(value, again.effects(), np.trace(null.sums, axis1=1, axis2=2) / mass),
        explained=estimate(float(point.explained()[0]), again.explained(), unrelated.explained()),
        informative=informative,
    )


@dataclass(frozen=True)
class _StratumPairs:
    """Sums over the pairs of every two strata, of many draws.

    same, every: pairs of one type, and all pairs; the arrays in them are [draws, strata, strata].
    """

    same: Draws
    every: Draws

    @classmethod
    def of(
        cls,
        values: np.ndarray,
        codes: np.ndarray,
        strata: np.ndarray,
        weights: np.ndarray | None,
        groups: int,
    ) -> "_StratumPairs":
        """values: [n, n]; codes: [n]; strata: [draws, n]; weights: [draws, n], None for ones."""
        parts = []
        for code in np.unique(codes):
            rows = np.flatnonzero(codes == code)
            of_rows = None if weights is None else weights[:, rows]
            block = values[np.ix_(rows, rows)]
            parts.append(grouped_draws(block, strata[:, rows], of_rows, groups))
        same = Draws(
            sums=sum((p.sums for p in parts[1:]), parts[0].sums),
            pairs=sum((p.pairs for p in parts[1:]), parts[0].pairs),
        )
        return cls(same, grouped_draws(values, strata, weights, groups))

    def effect(self, draw: int) -> tuple[float, float, float]:
        """(effect, informative share, total weight) of a draw.

        Two strata with same-type weight s and different-type weight d have the regression's
        weight s d / (s + d).
        """
        same_sum, same = self.same.sums[draw], self.same.pairs[draw]
        other_sum, other = self.every.sums[draw] - same_sum, self.every.pairs[draw] - same
        both = (same > 1e-9) & (other > 1e-9)
        if not both.any():
            return float("nan"), 0.0, 0.0
        s, d = same[both], other[both]
        weight = s * d / (s + d)
        gap = same_sum[both] / s - other_sum[both] / d
        return (
            float((gap * weight).sum() / weight.sum()),
            float(s.sum() / same.sum()),
            float(weight.sum()),
        )

    def effects(self) -> np.ndarray:
        """[draws] effect."""
        return np.array([self.effect(draw)[0] for draw in range(len(self.every.sums))])

    def explained(self) -> np.ndarray:
        """[draws] 1 - effect / raw effect; NaN if the raw effect is not positive."""
        same, every = (
            (d.sums.sum((1, 2), dtype=np.float64), d.pairs.sum((1, 2), dtype=np.float64))
            for d in (self.same, self.every)
        )
        raw = same[0] / same[1] - (every[0] - same[0]) / (every[1] - same[1])
        return 1 - np.divide(self.effects(), raw, out=np.full(len(raw), np.nan), where=raw > 0)


def _residual(values: np.ndarray, strata: np.ndarray, groups: int) -> np.ndarray:
    """values minus the mean over the pairs of the same two strata (I != K)."""
    sums, pairs = group_sums(values, one_hot(strata, groups))
    mean = np.divide(sums, pairs, out=np.zeros_like(sums), where=pairs > 0)
    return values - mean[strata][:, strata]
