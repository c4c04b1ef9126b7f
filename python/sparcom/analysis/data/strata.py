"""Strata: groups of instructions alike in what is not their category: length and source.

A category effect counts as one only if it holds among instructions of like length from the same
source; the tests compare within strata, and permutations keep labels inside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Strata:
    """names: of the strata; codes: [n] int64, the stratum of each instruction;
    source: [strata] index into `sources` of each stratum; sources: their names;
    length: [strata] the length bin of each stratum."""

    names: tuple[str, ...]
    codes: np.ndarray
    sources: tuple[str, ...]
    source: np.ndarray
    length: np.ndarray


MAX_RATIO = 1.5
"""No length bin holds two instructions of which one is more than this times as long."""


def length_bins(tokens: np.ndarray, bins: int = 10) -> np.ndarray:
    """[n] int64 codes: `bins` quantile bins of the counted tokens, cut further by a geometric grid.

    Equal lengths are always together, and none is more than `MAX_RATIO` times another of its bin.
    """
    quantiles = np.quantile(tokens, np.linspace(0, 1, bins + 1)[1:-1], method="lower")
    steps = np.arange(np.log(max(int(tokens.max()), 1)) // np.log(MAX_RATIO) + 1)
    edges = np.unique(np.concatenate([quantiles, MAX_RATIO**steps]))
    return np.unique(np.searchsorted(edges, tokens, side="left"), return_inverse=True)[1]


def make_strata(tokens: np.ndarray, sources: Sequence[str], bins: int = 10) -> Strata:
    """Strata of length bin x source.

    tokens: [n] counted tokens; sources: [n] who made each instruction ("human", "ai", ...).
    """
    names = tuple(sorted(set(sources)))
    source = np.array([names.index(name) for name in sources], dtype=np.int64)
    length = length_bins(tokens, bins)
    bins = int(length.max(initial=0)) + 1
    used, codes = np.unique(source * bins + length, return_inverse=True)
    labels, owners = [], []
    for code in range(len(used)):
        inside = codes == code
        owner = int(source[inside][0])
        low, high = int(tokens[inside].min()), int(tokens[inside].max())
        labels.append(f"{names[owner] or 'unnamed'}, {low}-{high} tokens")
        owners.append(owner)
    return Strata(tuple(labels), codes, names, np.array(owners, dtype=np.int64), used % bins)


def overlap_share(category: np.ndarray, stratum: np.ndarray, categories: int) -> np.ndarray:
    """[C] share of each category's instructions that share their stratum with another category.

    Where it is low, length and source cannot be told from the category, and stratified tests
    have little to go by.
    """
    table = np.zeros((int(stratum.max(initial=-1)) + 1, categories), np.int64)
    np.add.at(table, (stratum, category), 1)
    shared = (table > 0).sum(1) > 1
    total = np.maximum(table.sum(0), 1)
    return table[shared].sum(0) / total


def origin_group(origin: str) -> str:
    """The collection that an origin names: what stands before its first ':'.

    >>> origin_group("openai/grade-school-math:data/test.jsonl#line836")
    'openai/grade-school-math'
    """
    return origin.partition(":")[0].strip()
