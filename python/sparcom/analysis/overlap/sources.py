"""Does the category effect hold within each source, and across sources?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparcom.analysis.overlap.category_matrix import CategoryMatrix, matrix_of_sums
from sparcom.analysis.stats.estimate import Estimate, estimate, matrix_estimates
from sparcom.analysis.stats.pair_sums import (
    bootstrap_draws,
    group_sums,
    one_hot,
    permutation_draws,
    same_minus_different,
)


@dataclass(frozen=True, kw_only=True)
class SourceOverlap:
    """Category matrix of the pairs between two sources (or within one), and its category effect.

    first, second: names of the sources; the same name twice: pairs within it.
    matrix: M[a, b] over I in (first, a), K in (second, b); across sources it need not be symmetric.
    estimates: [C][C] an Estimate of each: bootstrap interval, permuted-label chance.
    effect: Estimate, same minus different type; the null permutes labels within strata.
    """

    first: str
    second: str
    matrix: CategoryMatrix
    estimates: tuple[tuple[Estimate, ...], ...]
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
            matrix = matrix_of_sums(point[0][block], point[1][block], categories, twice=i == j)
            found = SourceOverlap(
                first=names[i],
                second=names[j],
                matrix=matrix,
                estimates=matrix_estimates(matrix.mean, again.means()[block], draws.means()[block]),
                effect=effect,
            )
            out.append(found)
    return out
