"""Checking what is stored before a run is resumed: what cannot be read, or is another's, goes."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq

from sparcom.errors import SparcomError
from sparcom.store.profiles.spans import Span, span_of
from sparcom.store.run_store import RunStore
from sparcom.store.stamped import StampedFiles

HINT = "counting its part again"
_THREADS = 8
_ROWS = 8
_TAIL = 8  # bytes behind a Parquet footer: its length and "PAR1"
Bad = tuple[str, str]
"""(name of a file, what is wrong with it)."""
Check = Callable[[RunStore, Sequence[str]], Iterable[Bad]]


def check_here(store: RunStore, names: Sequence[str]) -> Iterable[Bad]:
    """The files that cannot be used, and why; read to their end in threads of this process."""
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda name: problem_of_file(store, name), names)
        yield from ((n, problem) for n, problem in zip(names, found, strict=True) if problem)


def bad_files(store: RunStore, *, whole: bool = True, check: Check = check_here) -> list[Bad]:
    """The result files that are damaged, or belong to another measurement or other parts.

    whole: read every file to its end, checksums and all; else its footer alone: its run, its parts,
    its rows and its size. What a footer does not tell is found when the pages are read.
    check: reads whole files; on a cluster, its machines do (`pipeline.checking`).
    Raises SparcomError if corpus.parquet is damaged, which counting does not make again.
    """
    with store.corpus.open(streamed=True) as file:
        if whole:
            _read_through(file)
    names = [files.name(span) for files in store.stamped() for span in files.spans()]
    return list(check(store, names)) if whole else _bad_footers(store)


def _bad_footers(store: RunStore) -> list[Bad]:
    """The files whose footer does not fit to the run, or to the size of the file."""
    bad: list[Bad] = []
    rows: dict[str, dict[int, int]] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        for files in store.stamped():
            spans = files.spans()
            found = pool.map(lambda span, files=files: _footer(files, span), spans)
            for span, (problem, count) in zip(spans, found, strict=True):
                if problem:
                    bad.append((files.name(span), problem))
                elif files.folder != "profiles":
                    rows.setdefault(files.folder, {})[span.first] = count
    return bad + _bad_row_counts(store, rows)


def _footer(files: StampedFiles, span: Span) -> tuple[str | None, int]:
    """(why a file cannot be used, None if it can; its rows), from its footer."""
    try:
        with files.open(span, HINT) as file:
            facts = file.metadata
            chunks = (
                facts.row_group(group).column(column)
                for group in range(facts.num_row_groups)
                for column in range(facts.num_columns)
            )
            end = max((_end_of(chunk) for chunk in chunks), default=0)
            rows, needed = facts.num_rows, end + facts.serialized_size + _TAIL
        if (size := files.files.size(files.name(span))) < needed:
            name = f"{files.files.location}/{files.name(span)}"
            return f"{name}: {size} bytes, but its footer tells of {needed}; {HINT}", 0
    except SparcomError as error:
        return str(error), 0
    return None, rows


def _end_of(chunk: pq.ColumnChunkMetaData) -> int:
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    return int(min(start, chunk.data_page_offset) + chunk.total_compressed_size)


def _bad_row_counts(store: RunStore, rows: dict[str, dict[int, int]]) -> list[Bad]:
    """Files of counts and sets that do not hold every instruction of their part that was not set
    aside."""
    bad: list[Bad] = []
    planned, failed = store.corpus.rows_of_parts(), rows.get("failed", {})
    for files in store.stamped():
        if files.folder not in ("counts", "sets"):
            continue
        for part, count in rows.get(files.folder, {}).items():
            name = files.name(Span(part, part + 1))
            expected = planned[part] - failed.get(part, 0) if part < len(planned) else 0
            if count != expected:
                where = f"{store.location}/{name}"
                bad.append((name, f"{where}: {count} rows, expected {expected}; {HINT}"))
    return bad


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
                with files.open(span, HINT, streamed=True) as file:
                    _read_through(file)
    except SparcomError as error:
        return str(error)
    return None


def _read_through(file: pq.ParquetFile) -> None:
    """Read a file a few rows at a time: a part of counts may be larger than a machine's memory."""
    for _ in file.iter_batches(_ROWS):
        pass
