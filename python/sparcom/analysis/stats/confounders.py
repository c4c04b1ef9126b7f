"""How much of the category effect do length and source explain, and does it hold across sources?

The category effect is the mean overlap of same-type pairs minus that of different-type pairs. Pairs
are grouped into cells by the strata (length bin, or length bin x source) of the two; comparing
within cells only is the regression of overlap on "same type" with one constant per cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparcom.analysis.overlap.overlap import CategoryMatrix, group_sums, one_hot
from sparcom.analysis.stats.estimate import Estimate, cell_estimates, estimate
from sparcom.analysis.stats.resample import (
    Draws,
    bootstrap_draws,
    grouped_draws,
    permutation_draws,
    same_minus_different,
)


@dataclass(frozen=True)
class Adjusted:
    """effect: Estimate, same minus different within cells of like strata; the null permutes labels
        within strata; None in it where no cell holds both sorts of pair.
    explained: Estimate, 1 - effect / raw effect, the share that the strata explain; chance: strata
        dealt out at random; None in it where the raw effect is not positive, or there is no
        adjusted one.
    informative: share of the same-type pairs that lie in a cell with different-type pairs too.
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
    point = _Cells.of(values, codes, strata[None], None, groups)
    value, informative, mass = point.effect(0)
    if not np.isfinite(value):
        return Adjusted(Estimate(None), Estimate(None), 0.0)
    narrow = values.astype(np.float32)
    again = _Cells.of(narrow, codes, np.broadcast_to(strata, weights.shape), weights, groups)
    unrelated = _Cells.of(narrow, codes, dealt, None, groups)
    types = int(codes.max()) + 1
    null = permutation_draws(_residual(values, strata, groups), permuted, types)
    return Adjusted(
        estimate(value, again.effects(), np.trace(null.sums, axis1=1, axis2=2) / mass),
        estimate(float(point.explained()[0]), again.explained(), unrelated.explained()),
        informative,
    )


@dataclass(frozen=True)
class _Cells:
    """Sums over the pairs of each cell, one cell for two strata, of many draws.

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
    ) -> "_Cells":
        """values: [n, n]; codes: [n]; strata: [draws, n]; weights: [draws, n], None for ones."""
        parts = []
        for code in np.unique(codes):
            rows = np.flatnonzero(codes == code)
            of_rows = None if weights is None else weights[:, rows]
            block = values[np.ix_(rows, rows)]
            parts.append(grouped_draws(block, strata[:, rows], of_rows, groups))
        same = Draws(sum(p.sums for p in parts), sum(p.pairs for p in parts))
        return cls(same, grouped_draws(values, strata, weights, groups))

    def effect(self, draw: int) -> tuple[float, float, float]:
        """(effect, informative share, total weight) of a draw.

        A cell with same-type weight s and different-type weight d has the regression's weight
        s d / (s + d).
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
        """[draws] 1 - effect / raw effect; NaN where the raw effect is not positive."""
        same, every = (
            (d.sums.sum((1, 2), dtype=np.float64), d.pairs.sum((1, 2), dtype=np.float64))
            for d in (self.same, self.every)
        )
        raw = same[0] / same[1] - (every[0] - same[0]) / (every[1] - same[1])
        return 1 - np.divide(self.effects(), raw, out=np.full(len(raw), np.nan), where=raw > 0)


def _residual(values: np.ndarray, strata: np.ndarray, groups: int) -> np.ndarray:
    """values minus the mean of their cell (pairs I != K)."""
    sums, pairs = group_sums(values, one_hot(strata, groups))
    mean = np.divide(sums, pairs, out=np.zeros_like(sums), where=pairs > 0)
    return values - mean[strata][:, strata]


@dataclass(frozen=True)
class SourceOverlap:
    """Category matrix of the pairs between two sources (or within one), and its category effect.

    first, second: names of the sources; the same name twice: pairs within it.
    matrix: M[a, b] over I in (first, a), K in (second, b); across sources it need not be symmetric.
    cells: [C][C] an Estimate of each: bootstrap interval, permuted-label chance.
    effect: Estimate, same minus different type; the null permutes labels within strata.
    """

    first: str
    second: str
    matrix: CategoryMatrix
    cells: tuple[tuple[Estimate, ...], ...]
    effect: Estimate


def source_overlaps(
    values: np.ndarray,
    codes: np.ndarray,
    categories: tuple[str, ...],
    source: np.ndarray,
    names: Sequence[str],
    permuted: np.ndarray,
    weights: np.ndarray,
) -> list[SourceOverlap]:
    """Every source within itself, and every two across.

    Across sources, pairs of one type share no author and no origin: a category effect there is
    the strongest evidence. values: [n, n]; source: [n] codes into names.
    """
    types, n_sources = len(categories), len(names)
    joint = source * types + codes
    groups = n_sources * types
    point = group_sums(values, one_hot(joint, groups))
    draws = permutation_draws(values, source * types + permuted, groups)
    again = bootstrap_draws(values, joint, weights, groups)
    out = []
    for i in range(n_sources):
        for j in range(i, n_sources):
            block = np.s_[..., i * types : (i + 1) * types, j * types : (j + 1) * types]
            effect = estimate(
                float(same_minus_different(point[0][block], point[1][block])),
                same_minus_different(again.sums[block], again.pairs[block]),
                same_minus_different(draws.sums[block], draws.pairs[block]),
            )
            matrix = _block_matrix(point[0][block], point[1][block], categories, i == j)
            cells = cell_estimates(matrix.mean, again.means()[block], draws.means()[block])
            out.append(SourceOverlap(names[i], names[j], matrix, cells, effect))
    return out


def _block_matrix(
    sums: np.ndarray, pairs: np.ndarray, categories: tuple[str, ...], within: bool
) -> CategoryMatrix:
    count = np.rint(pairs).astype(np.int64)
    mean = np.divide(sums, pairs, out=np.full(sums.shape, np.nan), where=count > 0)
    halved = np.diag(np.diagonal(count) // 2) if within else 0
    return CategoryMatrix(categories, mean, count - halved)
