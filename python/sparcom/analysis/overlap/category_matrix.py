"""The category matrix: mean overlap between categories."""

from dataclasses import dataclass

import numpy as np

from sparcom.analysis.stats.pair_sums import group_sums, one_hot


@dataclass(frozen=True, kw_only=True)
class CategoryMatrix:
    """Mean of a pair measure between categories.

    categories: their names, in the order of rows and columns.
    mean: [C, C] M[a, b] over pairs I in a, K in b, I != K; NaN exactly where `pairs` is 0.
    pairs: [C, C] int64, unordered pairs behind each mean.
    """

    categories: tuple[str, ...]
    mean: np.ndarray
    pairs: np.ndarray


def category_matrix(
    values: np.ndarray, codes: np.ndarray, categories: tuple[str, ...]
) -> CategoryMatrix:
    """M[a, b] = mean of values[I, K] over I in a, K in b, I != K.

    values: [n, n] a measure of every pair; its diagonal is not used.
    codes: [n] the category of each instruction.

    >>> values = np.array([[1.0, 0.4], [0.4, 1.0]])
    >>> category_matrix(values, np.array([0, 1]), ("QA", "SUM")).mean[0, 1]
    np.float64(0.4)
    """
    sums, pairs = group_sums(values, one_hot(codes, len(categories)))
    return matrix_of_sums(sums, pairs, categories, twice=True)


def matrix_of_sums(
    sums: np.ndarray, pairs: np.ndarray, categories: tuple[str, ...], *, twice: bool
) -> CategoryMatrix:
    """The matrix from sums of values and of ordered pairs [C, C].

    twice: a pair of one category was summed twice, as I, K and as K, I.
    """
    count = np.rint(pairs).astype(np.int64)
    mean = np.divide(sums, pairs, out=np.full(sums.shape, np.nan), where=count > 0)
    halved = np.diag(np.diagonal(count) // 2) if twice else 0
    return CategoryMatrix(categories=categories, mean=mean, pairs=count - halved)
