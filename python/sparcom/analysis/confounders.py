"""How much of the category effect do length and source explain, and does it hold across sources?

The category effect is the mean overlap of same-type pairs minus that of different-type pairs. Pairs
are grouped into cells by the strata (length bin, or length bin x source) of the two; comparing
within cells only is the regression of overlap on "same type" with one constant per cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparcom.analysis.estimate import Estimate, cell_estimates, estimate
from sparcom.analysis.overlap import CategoryMatrix, group_sums, one_hot
from sparcom.analysis.resample import (
    Draws,
    bootstrap_draws,
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
    groups, types = int(strata.max()) + 1, int(codes.max()) + 1
    joint = strata * types + codes
    sums, pairs = group_sums(values, one_hot(joint, groups * types))
    value, informative, mass = _within_cells(sums, pairs, groups, types)
    if not np.isfinite(value):
        return Adjusted(Estimate(None), Estimate(None), 0.0)
    narrow = values.astype(np.float32)
    again = bootstrap_draws(narrow, joint, weights, groups * types)
    effects, shares = _adjusted_draws(again, groups, types)
    unrelated = permutation_draws(narrow, dealt * types + codes, groups * types)
    null = permutation_draws(_residual(values, strata, groups), permuted, types)
    return Adjusted(
        estimate(value, effects, np.trace(null.sums, axis1=1, axis2=2) / mass),
        estimate(
            _explained(value, _raw(sums, pairs, groups, types)),
            shares,
            _adjusted_draws(unrelated, groups, types)[1],
        ),
        informative,
    )


def _adjusted_draws(draws: Draws, groups: int, types: int) -> tuple[np.ndarray, np.ndarray]:
    """(adjusted effect, share that the strata explain), each [draws]."""
    effects, shares = [], []
    for sums, pairs in zip(draws.sums, draws.pairs, strict=True):
        effects.append(_within_cells(sums, pairs, groups, types)[0])
        shares.append(_explained(effects[-1], _raw(sums, pairs, groups, types)))
    return np.array(effects), np.array(shares)


def _raw(sums: np.ndarray, pairs: np.ndarray, groups: int, types: int) -> float:
    """The effect without strata, from sums over (stratum, type) groups."""
    return float(same_minus_different(*(_over(m, groups, types, by="type") for m in (sums, pairs))))


def _explained(adjusted: float, raw: float) -> float:
    return 1 - adjusted / raw if raw > 0 else float("nan")


def _within_cells(
    sums: np.ndarray, pairs: np.ndarray, groups: int, types: int
) -> tuple[float, float, float]:
    """(effect, informative share, total weight) from sums over (stratum, type) groups.

    A cell with same-type weight s and different-type weight d has the regression's weight
    s d / (s + d).
    """
    same_sum, same = (_over(m, groups, types, by="same") for m in (sums, pairs))
    other_sum, other = (
        _over(m, groups, types, by="all") - part for m, part in ((sums, same_sum), (pairs, same))
    )
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


def _over(matrix: np.ndarray, groups: int, types: int, *, by: str) -> np.ndarray:
    """Sum [groups x types, groups x types] over types ("same", "all") or over strata ("type")."""
    blocks = matrix.reshape(groups, types, groups, types)
    return np.einsum({"same": "hckc->hk", "all": "hckd->hk", "type": "hckd->cd"}[by], blocks)


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
