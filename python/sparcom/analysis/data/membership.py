"""Membership: how many instructions of each category and stratum hold each component.

It is the stored profile, summed over folds. It costs categories x strata x components whatever the
corpus size, and is all that prevalence, generality and the specificity tests need.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Membership:
    """One row for each category within a stratum.

    categories: names.
    category, stratum: [rows] int64 codes; count: [rows] int64, instructions of each row.
    members: [rows, components] uint32, how many of them hold the component.
    """

    categories: tuple[str, ...]
    category: np.ndarray
    stratum: np.ndarray
    count: np.ndarray
    members: np.ndarray

    @property
    def instructions(self) -> int:
        return int(self.count.sum())

    def totals(self) -> np.ndarray:
        """[components] int64: instructions that hold each component."""
        return self.members.sum(0, dtype=np.int64)

    def by_category(self) -> tuple[np.ndarray, np.ndarray]:
        """(count [C], members [C, components] int32) summed over the strata."""
        shape = (len(self.categories), self.members.shape[1])
        count = np.bincount(self.category, self.count, len(self.categories)).astype(np.int64)
        members = np.zeros(shape, np.int32)
        for row, at in zip(self.members, self.category, strict=True):
            members[at] += row.astype(np.int32)
        return count, members

    def prevalence(self) -> np.ndarray:
        """[C, components] float64: q, the share of a category's instructions that hold it."""
        count, members = self.by_category()
        return members / np.maximum(count, 1)[:, None]

    def within(self, strata: Sequence[int] | np.ndarray) -> "Membership":
        """The rows of some strata only; categories and strata keep their numbers."""
        keep = np.isin(self.stratum, np.asarray(strata, np.int64))
        return Membership(
            categories=self.categories,
            category=self.category[keep],
            stratum=self.stratum[keep],
            count=self.count[keep],
            members=self.members[keep],
        )

    def pooled(self) -> "Membership":
        """The same instructions in one stratum."""
        count, members = self.by_category()
        kept = np.flatnonzero(count)
        return Membership(
            categories=self.categories,
            category=kept,
            stratum=np.zeros_like(kept),
            count=count[kept],
            members=members[kept],
        )


def mean_intersection(membership: Membership) -> np.ndarray:
    """[C, C] exact mean |S_I & S_K| over pairs I != K, from members alone.

    Off the diagonal sum_n m_n(a) m_n(b) / (N_a N_b); on it sum_n m_n (m_n - 1) / (N (N - 1)).
    NaN if a category has fewer than two instructions.
    """
    count, members = membership.by_category()
    m = members.astype(np.float64)
    sums = m @ m.T - np.diag(m.sum(1))
    pairs = np.outer(count, count) - np.diag(count)
    return np.divide(sums, pairs, out=np.full(sums.shape, np.nan), where=pairs > 0)


def chance_ratio_of_sums(membership: Membership, parts: Sequence[slice]) -> np.ndarray:
    """[C, C] `ratio_of_sums` of random sets with the mean size of each category in every site.

    parts: flat range of each site. E|A & B| = sum over sites of a b / w for mean sizes a, b.
    """
    count, members = membership.by_category()
    held = np.stack([members[:, part].sum(1, dtype=np.int64) for part in parts], 1)
    size = held / np.maximum(count, 1)[:, None]
    inter = (size / [part.stop - part.start for part in parts]) @ size.T
    union = size.sum(1)[:, None] + size.sum(1) - inter
    return np.divide(inter, union, out=np.zeros(inter.shape), where=union > 0)


def ratio_of_sums(membership: Membership) -> np.ndarray:
    """[C, C] mean intersection over mean union: a streaming stand-in for the mean Jaccard.

    Exact from membership: E|A & B| / (E|A| + E|B| - E|A & B|). It weighs large sets more than the
    mean of ratios does.
    """
    inter = mean_intersection(membership)
    count, members = membership.by_category()
    size = members.sum(1, dtype=np.int64) / np.maximum(count, 1)
    union = size[:, None] + size[None, :] - inter
    empty = np.where(np.isnan(inter), np.nan, 0.0)
    return np.divide(inter, union, out=empty, where=union > 0)
