"""Counts, sets and failures of a run, part by part.

A *part* is a fixed group of instructions, planned before counting starts, and the unit of work: it
is counted as a whole by one worker and written file by file, the profile last. A part is done when
all files of its retention are there; writing it again replaces it by itself.
"""

from collections.abc import Container, Iterator, Sequence
from typing import Literal

import pyarrow as pa

from sparcom.components import ComponentSpace
from sparcom.counting.counted import Counted
from sparcom.engines.count_part import Failure
from sparcom.errors import InputError
from sparcom.selection.sets import Sets
from sparcom.store.profiles.spans import Span
from sparcom.store.stamped import StampedFiles
from sparcom.store.tables import (
    FAILED_SCHEMA,
    SIGNS,
    concat_sets,
    counts_of,
    counts_table,
    sets_of,
    sets_table,
)

Kind = Literal["counts", "sets"]


class ResultFiles:
    """What was counted and selected, and what was set aside.

    counts, sets, failed: the folders.
    """

    def __init__(self, counts: StampedFiles, sets: StampedFiles, failed: StampedFiles) -> None:
        self._of = {"counts": counts, "sets": sets, "failed": failed}
        self._location = counts.files.location

    def parts(self, kind: Kind) -> set[int]:
        """The parts that there are counts, or sets, of; without opening a file."""
        return {span.first for span in self._of[kind].spans()}

    def write(
        self,
        part: int,
        counted: Counted | None,
        sets: Sets | None,
        failures: Sequence[Failure],
    ) -> None:
        """Write the results of one part: those that are given."""
        span = Span(part, part + 1)
        if counted is not None:
            self._of["counts"].write(span, counts_table(counted))
        if failures:
            rows = [{"id": f.id, "reason": f.reason} for f in failures]
            self._of["failed"].write(span, pa.Table.from_pylist(rows, FAILED_SCHEMA))
        else:  # those of an earlier try
            self._of["failed"].delete(span)
        if sets is not None:
            self.write_sets(part, sets)

    def write_sets(self, part: int, sets: Sets) -> None:
        """Write the sets of one part."""
        self._of["sets"].write(Span(part, part + 1), sets_table(sets))

    def counts(self, *, signs: bool = False) -> Iterator[tuple[int, Counted]]:
        """(part, its counts), one part at a time, without magnitudes, which profiles alone have.

        signs: those too, if the run counted them.
        """
        without = () if signs else SIGNS
        for span in self._of["counts"].spans():
            yield span.first, counts_of(self._of["counts"].read(span, without))

    def sets(self, space: ComponentSpace) -> Iterator[tuple[int, Sets]]:
        """(part, its sets), one part at a time."""
        for span in self._of["sets"].spans():
            yield span.first, sets_of(self._of["sets"].read(span), space)

    def all_sets(self, space: ComponentSpace) -> Sets:
        """The sets of all parts, in part order; raises InputError if there are none."""
        parts = [sets for _, sets in self.sets(space)]
        if not parts:
            raise InputError(
                f"{self._location}: no sets in this run; it is not complete, or retains only its "
                "profile"
            )
        return concat_sets(parts)

    def set_sizes(self) -> pa.Table:
        """id, tokens (T) and sizes of every instruction that has a set, in part order: what is
        known of the sets without reading one."""
        tables = []
        for span in self._of["sets"].spans():
            with self._of["sets"].open(span) as file:
                tables.append(file.read(columns=["id", "tokens", "sizes"]))
        return pa.concat_tables(tables)

    def failures(self, without: Container[int] = ()) -> list[Failure]:
        """The instructions that were set aside; without: parts that are left out."""
        return [
            Failure(row["id"], row["reason"])
            for span in self._of["failed"].spans()
            if span.first not in without
            for row in self._of["failed"].read(span).to_pylist()
        ]
