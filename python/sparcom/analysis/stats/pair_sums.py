"""Sums of a pair measure between groups of instructions, of the data and of many draws.

The pair matrix is computed once. A relabelling or a resample of instructions changes only which
pairs count how much, so each draw is a product G^T V G with an [n, C] matrix of indicators or
weights, and a thousand draws are one wide matrix product.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_WIDE = 512  # columns of a product at once: the draws of one batch x categories


def one_hot(codes: np.ndarray, groups: int) -> np.ndarray:
    """[n, groups] float64 indicators of codes [n]; a code of -1 belongs to no group."""
    return (codes[:, None] == np.arange(groups)).astype(np.float64)


def group_sums(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sums over pairs I != K between groups: (W^T V W, W^T (1 - I) W), each [C, C].

    values: [n, n] with any diagonal; weights: [n, C], zero outside a group.
    """
    own = weights.T @ (np.diagonal(values)[:, None] * weights)
    totals = weights.sum(0)
    return weights.T @ values @ weights - own, np.outer(totals, totals) - weights.T @ weights


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Category sums of many draws.

    sums, pairs: [draws, C, C] weighted sums of the values and of the pairs I != K.
    """

    sums: np.ndarray
    pairs: np.ndarray

    def means(self) -> np.ndarray:
        """[draws, C, C] M of each draw; NaN without a pair."""
        return _divide(self.sums, self.pairs)

    def difference(self) -> np.ndarray:
        """[draws] mean over same-type pairs minus mean over different-type pairs."""
        return same_minus_different(self.sums, self.pairs)


def same_minus_different(sums: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Difference of the mean same-type and different-type value, from [..., C, C] sums."""
    same, same_pairs = (np.trace(m, axis1=-2, axis2=-1) for m in (sums, pairs))
    other, other_pairs = sums.sum((-2, -1)) - same, pairs.sum((-2, -1)) - same_pairs
    return _divide(same, same_pairs) - _divide(other, other_pairs)


def permutation_draws(values: np.ndarray, permuted: np.ndarray, categories: int) -> Draws:
    """Category sums of `values` [n, n] under each relabelling [draws, n]."""
    return grouped_draws(values, permuted, None, categories)


def weighted_sums(
    values: np.ndarray, codes: np.ndarray, weights: np.ndarray, categories: int
) -> Draws:
    """Category sums of `values` [n, n] under each weighting; weights [draws, n].

    A pair counts w_I w_K with I != K.
    """
    return grouped_draws(values, np.broadcast_to(codes, weights.shape), weights, categories)


def grouped_draws(
    values: np.ndarray, codes: np.ndarray, weights: np.ndarray | None, categories: int
) -> Draws:
    """Group sums of `values` [n, n] under codes [draws, n] and weights [draws, n] (None: ones)."""
    own = np.diagonal(values)
    sums, pairs = [], []
    for batch in _batches(len(codes), max(1, _WIDE // max(categories, 1))):
        group = (codes[batch][:, :, None] == np.arange(categories)).astype(values.dtype)
        if weights is not None:
            group *= weights[batch][:, :, None].astype(values.dtype)
        size, n, _ = group.shape
        wide = group.transpose(1, 0, 2).reshape(n, -1)
        product = (values @ wide).reshape(n, size, categories).transpose(1, 0, 2)
        total, squares = group.sum(1), np.square(group).sum(1)
        itself = (own[:, None] * np.square(group)).sum(1)  # a pair I = K lies in one group
        unit = np.eye(categories, dtype=group.dtype)
        sums.append(_by_group(product, group, codes[batch]) - itself[:, :, None] * unit)
        pairs.append(total[:, :, None] * total[:, None, :] - squares[:, :, None] * unit)
    empty = np.zeros((0, categories, categories))
    return Draws(sums=np.concatenate(sums or [empty]), pairs=np.concatenate(pairs or [empty]))


def _by_group(rows: np.ndarray, group: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """[draws, C, C] sums of rows [draws, n, C] over each draw's groups, weighed by group.

    Not a product of matrices: so small ones cost a threaded BLAS more than they compute.
    """
    out = np.zeros((len(rows), rows.shape[2], rows.shape[2]), rows.dtype)
    for at, (part, weight) in enumerate(zip(rows, group.sum(2), strict=True)):
        order = np.argsort(codes[at], kind="stable")
        order = order[codes[at][order] >= 0]
        if len(order):
            names, starts = np.unique(codes[at][order], return_index=True)
            out[at, names] = np.add.reduceat((weight[:, None] * part)[order], starts)
    return out


def _batches(draws: int, size: int) -> Iterator[slice]:
    for start in range(0, draws, size):
        yield slice(start, min(start + size, draws))


def _divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    top, bottom = np.asarray(top), np.asarray(bottom)
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 1e-9)
