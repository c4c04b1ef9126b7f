"""The rows of a recipe's sources: from the hub, or from a mirror (a folder of their files)."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from sparcom.corpus.hexainst.recipes import Source
from sparcom.corpus.reading import hub
from sparcom.corpus.reading.files import is_corpus_file
from sparcom.corpus.reading.guard import guarded
from sparcom.corpus.reading.rows import Row, read_rows
from sparcom.errors import InputError
from sparcom.formatting import shorten


def source_rows(source: Source, mirror: str | None) -> Iterator[Mapping]:
    """The rows of a source, from the hub or from its folder of a mirror.

    Raises InputError naming the source and what to do.
    """
    if mirror is None:
        advice = (
            f"give --mirror DIR with its files in DIR/{source.name}, --human DIR with a ready "
            "corpus, or --missing fill"
        )
        rows = _named(source, hub.read_rows(source.data, advice))
    else:
        rows = (row for file in mirror_files(source, mirror) for row in read_rows(file))
    for number, row, problem in rows:
        if problem is not None:
            raise InputError(f"source {source.name}: row {number}: {problem}")
        if isinstance(row, Mapping):
            yield row


def _named(source: Source, rows: Iterator[Row]) -> Iterator[Row]:
    try:
        yield from rows
    except InputError as error:
        raise InputError(f"source {source.name}: {error}") from error


def mirror_files(source: Source, mirror: str) -> list[Path]:
    """The files of a source in a mirror: those of the first pattern that matches any."""
    folder = Path(mirror) / source.name
    with guarded(f"source {source.name}: mirror {shorten(mirror, 200)}"):
        for pattern in source.files:
            if found := sorted(f for f in folder.glob(pattern) if is_corpus_file(f)):
                return found
    raise InputError(
        f"source {source.name}: the mirror has no {' or '.join(source.files)} under {folder}; put "
        f"the files of {source.origin} there"
    )
