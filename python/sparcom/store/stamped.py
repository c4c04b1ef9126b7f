"""Result files of a run, each bound to its run and to its parts by what its metadata say.

A *stamp* is the fingerprint of the measurement (and of the selection, if sets went in) that a file
belongs to. It stands in the file together with the parts that the file covers, and every reader
compares both: a file of another run, or of another part, is never taken for what its name says.
"""

from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from sparcom.errors import InputError
from sparcom.store.files import Files
from sparcom.store.profiles.cells import KEYS
from sparcom.store.profiles.spans import Span, span_of

HINT = "delete this file and finish the run with --resume"
_STAMP, _PARTS = "sparcom", "sparcom-parts"
COLUMNS = {
    "counts": ("id", "tokens"),
    "sets": ("id", "tokens", "sizes"),
    "failed": ("id", "reason"),
    "profiles": (*KEYS, "instructions", "tokens", "ids"),
}
"""Of every file of a folder, whatever the model."""


class StampedFiles:
    """The files of one result folder (counts, sets, profiles, failed).

    stamp: what its files are stamped with; None: they are not checked (runs of versions without).
    """

    def __init__(self, files: Files, folder: str, stamp: str | None) -> None:
        self.files, self.folder, self._stamp = files, folder, stamp

    def spans(self) -> list[Span]:
        """The parts, or spans of parts, that there are files of; ascending."""
        names = self.files.names(self.folder)
        return sorted(span for name in names if (span := span_of(name)) is not None)

    def name(self, span: Span) -> str:
        """The name of a file within the run."""
        return f"{self.folder}/{span.name}"

    def metadata(self, span: Span) -> dict[str, str]:
        """What stands in the metadata of a file."""
        return {_STAMP: self._stamp or "", _PARTS: f"{span.first}-{span.stop - 1}"}

    def write(self, span: Span, table: pa.Table) -> None:
        """Write a table as the file of a span, in place of what was there."""
        self.files.write_table(self.name(span), table, self.metadata(span))

    def read(self, span: Span, without: Container[str] = ()) -> pa.Table:
        """The table of a span; without: names of columns that are not wanted."""
        with self.open(span) as file:
            names = [n for n in file.schema_arrow.names if n not in without]
            return file.read(columns=names if without else None)

    def delete(self, span: Span) -> None:
        """Delete the file of a span, if there is one."""
        self.files.delete(self.name(span))

    @contextmanager
    def open(
        self, span: Span, hint: str = HINT, *, streamed: bool = False
    ) -> Iterator[pq.ParquetFile]:
        """The file of a span, opened and checked.

        Raises InputError if it cannot be read, or belongs to another run or other parts.
        """
        with self.files.parquet(self.name(span), hint, streamed=streamed) as file:
            where = f"{self.files.location}/{self.name(span)}"
            check_stamp(file, self.metadata(span) if self._stamp is not None else {}, where, hint)
            lost = [name for name in COLUMNS[self.folder] if name not in file.schema_arrow.names]
            if lost:  # the footer of a Parquet file has no checksum
                raise InputError(f"{where}: it has no column {lost[0]!r}; {hint}")
            yield file


def check_stamp(file: pq.ParquetFile, expected: Mapping[str, str], where: str, hint: str) -> None:
    """Raise InputError if the metadata of a file are not as expected."""
    found = file.metadata.metadata or {}
    for name, value in expected.items():
        text = found.get(name.encode(), b"").decode(errors="replace")
        if text != value:
            what = "written by another run" if name == _STAMP else f"holds the parts {text or '?'}"
            raise InputError(f"{where}: {what}; {hint}")


def corpus_metadata(stamp: str) -> dict[str, str]:
    """What stands in the metadata of corpus.parquet."""
    return {_STAMP: stamp}
