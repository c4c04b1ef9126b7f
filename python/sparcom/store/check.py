"""Checking what is stored before a run is resumed: what cannot be read, or is another's, goes."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq

from sparcom.errors import SparcomError
from sparcom.store.profiles.spans import Span, span_of
from sparcom.store.run_store import RunStore

_THREADS = 8
_ROWS = 8
Bad = tuple[str, str]
"""(name of a file, what is wrong with it)."""
Check = Callable[[RunStore, Sequence[str]], Iterable[Bad]]


def check_here(store: RunStore, names: Sequence[str]) -> Iterable[Bad]:
    """The files that cannot be used, and why; read in threads of this process."""
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda name: problem_of_file(store, name), names)
        yield from ((n, problem) for n, problem in zip(names, found, strict=True) if problem)


def bad_files(store: RunStore, check: Check = check_here) -> list[Bad]:
    """Read every stored file once, checksums and all: the result files that are not whole, or
    belong to another measurement or other parts.

    check: reads them; on a cluster, its machines do (`pipeline.checking`).
    Raises SparcomError if corpus.parquet is damaged, which counting does not make again.
    """
    with store.corpus.open(streamed=True) as file:
        _read_through(file)
    names = [files.name(span) for files in store.stamped() for span in files.spans()]
    return list(check(store, names))


def drop_bad_files(store: RunStore, bad: Iterable[Bad]) -> None:
    """Delete files that cannot be used: their parts are then not done, and counted again."""
    for name, _ in bad:
        folder, _, base = name.partition("/")
        if folder == "failed" and (part := span_of(base)):  # only counting again tells which failed
            _undo(store, part)
        store.files.delete(name)


def _undo(store: RunStore, part: Span) -> None:
    """Make a part count as not done: without its sets, or without a profile that covers it."""
    if store.results.parts("sets"):
        store.files.delete(f"sets/{part.name}")
        return
    for span in store.profiles.spans():
        if span.holds(part):
            store.files.delete(f"profiles/{span.name}")


def problem_of_file(store: RunStore, name: str) -> str | None:
    """Why a result file cannot be used; None if it can."""
    folder, _, base = name.partition("/")
    try:
        for files in store.stamped():
            if files.folder == folder and (span := span_of(base)):
                with files.open(span, "counting its part again", streamed=True) as file:
                    _read_through(file)
    except SparcomError as error:
        return str(error)
    return None


def _read_through(file: pq.ParquetFile) -> None:
    """Read a file a few rows at a time: a part of counts may be larger than a machine's memory."""
    for _ in file.iter_batches(_ROWS):
        pass
