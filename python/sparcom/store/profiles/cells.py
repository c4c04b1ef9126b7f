"""Cells: what the instructions of a run are summed over in its profile.

A cell is category x source x length bin x fold. An instruction's length is its T, with what was
generated. The bins are fixed before counting starts: quantiles of the prompts' counted tokens, cut
further by a geometric grid. A fold is a hash of the instruction's id. Intervals and split halves
come from folds, length strata from bins, the human/AI comparison from sources.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa

FOLDS = 10
BINS = 10
MAX_RATIO = 1.5
KEYS = ("category", "source", "length", "fold")
KEY_SCHEMA = pa.schema(
    [
        pa.field("category", pa.string()),
        pa.field("source", pa.string()),
        pa.field("length", pa.int32()),
        pa.field("fold", pa.int32()),
    ]
)


@dataclass(frozen=True)
class CellRule:
    """How an instruction finds its cell.

    edges: ascending upper ends (inclusive) of all length bins but the last, in counted tokens.
    """

    edges: tuple[float, ...]
    folds: int = FOLDS

    def keys(self, labels: pa.Table, tokens: np.ndarray) -> pa.Table:
        """The cell of each instruction.

        labels: columns id, category and source; tokens: [n] T of each.
        """
        lengths = np.searchsorted(np.asarray(self.edges, np.float64), tokens, side="left")
        folds = [fold_of(name, self.folds) for name in labels["id"].to_pylist()]
        columns = [
            labels["category"].combine_chunks(),
            labels["source"].combine_chunks(),
            pa.array(lengths, pa.int32()),
            pa.array(folds, pa.int32()),
        ]
        return pa.Table.from_arrays(columns, schema=KEY_SCHEMA)

    def to_json(self) -> dict:
        return {"edges": list(self.edges), "folds": self.folds}

    @classmethod
    def from_json(cls, rule: Mapping) -> "CellRule":
        return cls(tuple(rule["edges"]), rule["folds"])


def fold_of(identifier: str, folds: int = FOLDS) -> int:
    """The fold of an instruction: a hash of its id, the same in every run."""
    digest = blake2b(identifier.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % folds


def length_edges(
    histogram: Sequence[int] | np.ndarray, *, generated: int = 0, bins: int = BINS
) -> tuple[float, ...]:
    """Edges of the length bins: `bins` quantiles (lower ones), cut further by a geometric grid.

    Equal lengths share a bin, and none of a bin is more than `MAX_RATIO` times another.
    histogram: [longest + 1], prompts of each length. generated: the most tokens that may be counted
    of an answer beside those of the prompt; the grid reaches as far.

    >>> length_edges([0, 0, 0, 0, 5, 5], bins=2)
    (1.0, 1.5, 2.25, 3.375, 4.0)
    """
    counts = np.asarray(histogram, np.int64)
    total = int(counts.sum())
    if not total:
        return ()
    ranks = np.arange(1, bins) * (total - 1) // bins
    quantiles = np.searchsorted(np.cumsum(counts), ranks, side="right")
    longest = max(int(np.flatnonzero(counts)[-1]), 1) + generated
    steps = np.arange(np.log(longest) // np.log(MAX_RATIO) + 1)
    return tuple(np.unique(np.concatenate([quantiles, MAX_RATIO**steps])).tolist())
