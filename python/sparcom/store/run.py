"""A finished run, opened for reading."""

from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from sparcom.components import ComponentSpace
from sparcom.selection.rules import Sets
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
        """id, category, source, origin, n_tokens, n_counted, truncated of the instructions that
        were counted: those in `sets`, in its order, or without sets those in the profile.

        n_counted is T, with what was generated; a profile alone holds T by cell, so that there it
        is that of the prompt.
        """
        table = self.store.corpus(LABELS)
        if not self.store.has_sets():
            known = pa.array(self.store.profile_ids(), pa.string())
            return table.filter(pc.is_in(table["id"], known))
        heads = self.store.set_heads()
        row_of = {name: row for row, name in enumerate(table["id"].to_pylist())}
        rows = pa.array([row_of[name] for name in heads["id"].to_pylist()], pa.int64())
        at = table.column_names.index("n_counted")
        tokens = heads["tokens"].cast(table.schema.field(at).type)
        return table.take(rows).set_column(at, "n_counted", tokens)
