"""Checking what is stored before a run is resumed: what cannot be read, or is another's, goes."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq

from sparcom.errors import SparcomError
from sparcom.store.corpus_file import HINT
from sparcom.store.corpus_file import NAME as CORPUS
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
    """Read every stored file once, checksums and all: the result files that are not whole or belong
    to another measurement.

    check: reads them; on a cluster, its machines do (`service.checking`).
    Raises SparcomError where corpus.parquet is damaged, which counting does not make again.
    """
    with store.files.parquet(CORPUS, HINT, streamed=True) as file:
        _read_through(file)
    names = [
        f"{folder}/{name}"
        for folder in ("counts", "sets", "failed", "profiles")
        for name in store.files.names(folder)
        if span_of(name)
    ]
    return list(check(store, names))


def drop_bad_files(store: RunStore, bad: Iterable[Bad]) -> None:
    """Delete files that cannot be used: their parts are then not done, and counted again."""
    for name, _ in bad:
        if name.startswith("failed/"):  # which ones failed is known only by counting again
            _undo(store, span_of(name.removeprefix("failed/")))
        store.files.delete(name)


def _undo(store: RunStore, part: Span) -> None:
    """Make a part count as not done: without its sets, or without a profile that covers it."""
    if store.has_sets():
        store.files.delete(f"sets/{part.name}")
        return
    for span in store.spans():
        if span.holds(part):
            store.files.delete(f"profiles/{span.name}")


def problem_of_file(store: RunStore, name: str) -> str | None:
    """Why a result file cannot be used; None where it can."""
    try:
        with store.files.parquet(name, "counting its part again", streamed=True) as file:
            metadata = file.schema_arrow.metadata or {}
            if metadata.get(b"sparcom", b"").decode() != store.stamp(name.partition("/")[0]):
                return f"{store.location}/{name}: written by another run; counting its part again"
            _read_through(file)
    except SparcomError as error:
        return str(error)
    return None


def _read_through(file: pq.ParquetFile) -> None:
    """Read a file a few rows at a time: a part of counts may be larger than a machine's memory."""
    for _ in file.iter_batches(_ROWS):
        pass
