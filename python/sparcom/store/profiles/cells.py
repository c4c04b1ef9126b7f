"""Cells: what the instructions of a run are summed over in its profile.

A cell is category x source x length bin x fold. Length bins are quantiles of the whole corpus's
counted tokens, fixed before counting starts; a fold is a hash of the instruction's id. Intervals
and split halves come from folds, length strata from bins, the human/AI comparison from sources.
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

    def keys(self, labels: pa.Table) -> pa.Table:
        """The cell of each instruction: labels with columns id, category, source, n_counted."""
        lengths = np.searchsorted(
            np.asarray(self.edges, np.float64), labels["n_counted"].to_numpy(), side="left"
        )
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


def length_edges(histogram: Sequence[int] | np.ndarray, bins: int = BINS) -> tuple[float, ...]:
    """Edges of the length bins: quantiles, cut further by a geometric grid.

    histogram: [longest + 1], instructions of each length. The bins are those of
    `analysis.strata.length_bins` on the lengths themselves (its quantiles are `lower` ones), so
    that a stored profile has the strata that the analysis takes from the instructions.
    """
    counts = np.asarray(histogram, np.int64)
    total = int(counts.sum())
    if not total:
        return ()
    ranks = np.floor(np.linspace(0, 1, bins + 1)[1:-1] * (total - 1)).astype(np.int64)
    quantiles = np.searchsorted(np.cumsum(counts), ranks, side="right")
    longest = max(int(np.flatnonzero(counts)[-1]), 1)
    steps = np.arange(np.log(longest) // np.log(MAX_RATIO) + 1)
    return tuple(np.unique(np.concatenate([quantiles, MAX_RATIO**steps])).tolist())
