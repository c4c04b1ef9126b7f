"""A finished run, opened for reading."""

from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from sparcom.components import ComponentSpace
from sparcom.identify import Sets
from sparcom.store.run_store import RunStore

LABELS = ("id", "category", "source", "origin", "n_tokens", "n_counted", "truncated")


class Run:
    """A finished run, opened for reading.

    >>> run = Run("runs/chat")
    >>> run.space.neurons, len(run.sets.ids)
    """

    def __init__(self, location: str | Path) -> None:
        self.store = RunStore(location)
        self.manifest = self.store.manifest()

    @cached_property
    def space(self) -> ComponentSpace:
        return ComponentSpace.from_json(self.manifest["sites"])

    @cached_property
    def sets(self) -> Sets:
        return self.store.read_sets()

    @cached_property
    def labels(self) -> pa.Table:
        """id, category, source, origin, n_tokens, n_counted, truncated of the instructions in
        `sets`, in its order."""
        table = self.store.corpus(LABELS)
        row_of = {name: row for row, name in enumerate(table.column("id").to_pylist())}
        return table.take(pa.array([row_of[name] for name in self.sets.ids], pa.int64()))

    @cached_property
    def counted_labels(self) -> pa.Table:
        """The same of every instruction that was counted, in corpus order: of any retention."""
        table = self.store.corpus(LABELS)
        failed = {failure.id for failure in self.store.failures()}
        keep = np.array([name not in failed for name in table["id"].to_pylist()], bool)
        return table.filter(pa.array(keep))
