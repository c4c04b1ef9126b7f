"""Strata: groups of instructions alike in what is not their category: length and source.

A category effect counts as one only if it holds among instructions of like length from the same
source; the tests compare within strata, and permutations keep labels inside them. The length bins
are those of the stored profile, which were fixed before anything was counted.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from sparcom.analysis.data.labels import encode

STRATUM = ("source", "length")
"""Keys of the profile that make a stratum."""


@dataclass(frozen=True, kw_only=True)
class Strata:
    """The strata of a run, and those of some of its instructions.

    sources: names. source, length: [strata] int64, source and length bin of each stratum; bins are
    numbered from 0 without gaps, from short to long.
    codes: [n] int64, the stratum of each instruction at hand.
    """

    sources: tuple[str, ...]
    source: np.ndarray
    length: np.ndarray
    codes: np.ndarray

    @property
    def sources_of(self) -> np.ndarray:
        """[n] int64: the source of each instruction, an index into `sources`."""
        return self.source[self.codes]

    @property
    def lengths_of(self) -> np.ndarray:
        """[n] int64: the length bin of each instruction."""
        return self.length[self.codes]

    def take(self, rows: np.ndarray) -> "Strata":
        """The same strata with the codes of some of the instructions."""
        return replace(self, codes=self.codes[rows])


def make_strata(cells: pa.Table) -> Strata:
    """The strata of profile cells (columns source and length); codes: of each cell.

    >>> make_strata(pa.table({"source": ["ai", "ai"], "length": [7, 2]})).codes.tolist()
    [1, 0]
    """
    words = cells["source"].to_pylist()
    sources = tuple(sorted(set(words)))
    length = np.unique(cells["length"].to_numpy(), return_inverse=True)[1]
    bins = int(length.max(initial=0)) + 1
    used, codes = np.unique(encode(words, sources) * bins + length, return_inverse=True)
    return Strata(sources=sources, source=used // bins, length=used % bins, codes=codes)


def strata_of(keys: pa.Table, cells: pa.Table) -> Strata | None:
    """The strata of the profile with the codes of instructions.

    keys: category, source and length of each instruction; cells: of the profile, with their number
    of `instructions`. None if the cells hold other instructions than these.
    """
    by = ["category", *STRATUM]
    found = keys.group_by(by).aggregate([([], "count_all")])
    counts = [
        {tuple(row[name] for name in by): row[number] for row in table.to_pylist()}
        for table, number in ((found, "count_all"), (cells, "instructions"))
    ]
    return make_strata(keys) if counts[0] == counts[1] else None


def overlap_share(category: np.ndarray, stratum: np.ndarray, count: np.ndarray) -> np.ndarray:
    """[C] share of each category's instructions that share their stratum with another category.

    category, stratum, count: [rows] codes and number of instructions. If the share is low, length
    and source cannot be told from the category, and stratified tests have little to go by.
    """
    shape = (int(stratum.max(initial=-1)) + 1, int(category.max(initial=-1)) + 1)
    table = np.zeros(shape, np.int64)
    np.add.at(table, (stratum, category), count)
    shared = (table > 0).sum(1) > 1
    total = np.maximum(table.sum(0), 1)
    return table[shared].sum(0) / total
