"""Profiles: how many instructions of each cell hold each component.

A *cell* is a category within a stratum (`strata.py`). The profile costs cells x components,
whatever the corpus size, is built in one pass over the parts of a run, and is all that prevalence,
generality and the specificity tests need.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparcom.analysis.data.bitsets import column_counts
from sparcom.errors import InputError


@dataclass(frozen=True)
class Profile:
    """Members per cell.

    categories, strata: their names.
    category, stratum: [cells] int64, what a cell is.
    count: [cells] int64 instructions of the cell.
    members: [cells, components] uint16 or uint32, how many of them hold the component.
    """

    categories: tuple[str, ...]
    strata: tuple[str, ...]
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

    def within(self, strata: Sequence[int]) -> "Profile":
        """The profile of some strata only; categories and strata keep their numbers."""
        keep = np.isin(self.stratum, np.asarray(strata, np.int64))
        return Profile(
            self.categories,
            self.strata,
            self.category[keep],
            self.stratum[keep],
            self.count[keep],
            self.members[keep],
        )

    def pooled(self) -> "Profile":
        """The same instructions in one stratum."""
        count, members = self.by_category()
        kept = np.flatnonzero(count)
        return Profile(
            self.categories, ("all",), kept, np.zeros_like(kept), count[kept], members[kept]
        )


class ProfileBuilder:
    """Builds a `Profile` from sets that come in any order and grouping.

    category, stratum: [n] int64 codes of all instructions to come; they fix the cells.
    components: how many there are.
    """

    def __init__(
        self,
        categories: Sequence[str],
        category: np.ndarray,
        strata: Sequence[str],
        stratum: np.ndarray,
        components: int,
    ) -> None:
        self._categories, self._strata = tuple(categories), tuple(strata)
        codes, self.cell = np.unique(category * len(strata) + stratum, return_inverse=True)
        self._cells = np.divmod(codes, len(strata)) if len(strata) else (codes, codes)
        self._components = components
        kind = np.uint16 if len(category) < 1 << 16 else np.uint32
        self._members = np.zeros((len(codes), components), kind)
        self._count = np.zeros(len(codes), np.int64)

    def add(self, bits: np.ndarray, rows: np.ndarray) -> None:
        """Add sets: bits [m, bytes]; rows [m], which instruction of `category` each one is."""
        if len(bits) != len(rows):
            raise InputError(f"profile: {len(bits)} sets for {len(rows)} instructions")
        cells = self.cell[rows]
        for cell in np.unique(cells):
            chosen = np.flatnonzero(cells == cell)
            counts = column_counts(bits[chosen])[: self._components]
            self._members[cell] += counts.astype(self._members.dtype)
            self._count[cell] += len(chosen)

    def build(self) -> Profile:
        category, stratum = self._cells
        return Profile(
            self._categories, self._strata, category, stratum, self._count, self._members
        )


def mean_intersection(profile: Profile) -> np.ndarray:
    """[C, C] exact mean |S_I & S_K| over pairs I != K, from members alone.

    Off the diagonal sum_n m_n(a) m_n(b) / (N_a N_b); on it sum_n m_n (m_n - 1) / (N (N - 1)).
    NaN where a category has fewer than two instructions.
    """
    count, members = profile.by_category()
    m = members.astype(np.float64)
    sums = m @ m.T - np.diag(m.sum(1))
    pairs = np.outer(count, count) - np.diag(count)
    return np.divide(sums, pairs, out=np.full(sums.shape, np.nan), where=pairs > 0)


def chance_ratio_of_sums(profile: Profile, parts: Sequence[slice]) -> np.ndarray:
    """[C, C] `ratio_of_sums` of random sets with the mean size of each category in every site.

    parts: flat range of each site. E|A & B| = sum over sites of a b / w for mean sizes a, b.
    """
    count, members = profile.by_category()
    held = np.stack([members[:, part].sum(1, dtype=np.int64) for part in parts], 1)
    size = held / np.maximum(count, 1)[:, None]
    inter = (size / [part.stop - part.start for part in parts]) @ size.T
    union = size.sum(1)[:, None] + size.sum(1) - inter
    return np.divide(inter, union, out=np.zeros(inter.shape), where=union > 0)


def ratio_of_sums(profile: Profile) -> np.ndarray:
    """[C, C] mean intersection over mean union: a streaming stand-in for the mean Jaccard.

    Exact from the profile: E|A & B| / (E|A| + E|B| - E|A & B|). It weighs large sets more than the
    mean of ratios does.
    """
    inter = mean_intersection(profile)
    count, members = profile.by_category()
    size = members.sum(1, dtype=np.int64) / np.maximum(count, 1)
    union = size[:, None] + size[None, :] - inter
    empty = np.where(np.isnan(inter), np.nan, 0.0)
    return np.divide(inter, union, out=empty, where=union > 0)
