"""Cells: what the instructions of a run are summed over in its profile.

A cell is category x source x length bin x fold. An instruction's length is its T, with what was
generated. The bins are fixed before counting starts: quantiles of the prompts' counted tokens, cut
further by a geometric grid. A fold is a hash of the instruction's cluster, so that what is alike
lies in one fold. Intervals come from folds, length strata from bins, the human/AI comparison from
sources.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa

from sparcom.clusters import with_clusters

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
    fold_of: "cluster"; "id" in runs of an older version, whose folds part what is alike.
    """

    edges: tuple[float, ...]
    folds: int = FOLDS
    fold_of: str = "cluster"

    def keys(self, labels: pa.Table, tokens: np.ndarray) -> pa.Table:
        """The cell of each instruction.

        labels: columns id, category, source, origin and cluster; tokens: [n] T of each.
        """
        lengths = np.searchsorted(np.asarray(self.edges, np.float64), tokens, side="left")
        named = with_clusters(labels) if self.fold_of == "cluster" else labels
        folds = [hashed_fold(name, self.folds) for name in named[self.fold_of].to_pylist()]
        columns = [
            labels["category"].combine_chunks(),
            labels["source"].combine_chunks(),
            pa.array(lengths, pa.int32()),
            pa.array(folds, pa.int32()),
        ]
        return pa.Table.from_arrays(columns, schema=KEY_SCHEMA)

    def to_json(self) -> dict:
        return {"edges": list(self.edges), "folds": self.folds, "fold_of": self.fold_of}

    @classmethod
    def from_json(cls, rule: Mapping) -> "CellRule":
        return cls(tuple(rule["edges"]), rule["folds"], rule.get("fold_of", "id"))


def hashed_fold(name: str, folds: int = FOLDS) -> int:
    """The fold of a cluster or an id: a hash, the same in every run."""
    digest = blake2b(name.encode("utf-8"), digest_size=8).digest()
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
