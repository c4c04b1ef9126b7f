"""Rows of corpus files: JSONL, JSON, CSV, TSV (each also as .gz) and Parquet, streamed.

Data sets are often published as JSON lines under the name .json; such a file is read as JSON lines.

A file yields `(number, record, problem)` per row. The number counts from 1: lines of a text file,
rows of any other. A row that cannot be decoded has a problem and no record; the next rows follow.
"""

import csv
import gzip
import json
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from sparcom.corpus.reading.files import suffix_of
from sparcom.errors import InputError

Row = tuple[int, object, str | None]
_BATCH = 4096  # Parquet rows decoded at a time
_LINE = 1 << 20  # bytes within which a .json file's first line must end to be a record of its own


def read_rows(file: Path) -> Iterator[Row]:
    """All rows of one file, in bounded memory.

    Raises InputError if the file as a whole cannot be read.
    """
    suffix = suffix_of(file)
    if suffix == ".parquet":
        yield from _parquet_rows(file)
        return
    try:
        with _open(file) as data:
            if suffix == ".jsonl":
                yield from _jsonl_rows(data)
            elif suffix == ".json" and not _is_json_lines(data):
                yield from _json_rows(data, file)
            elif suffix == ".json":
                yield from _jsonl_rows(data)
            else:
                yield from _csv_rows(data, "\t" if suffix == ".tsv" else ",")
    except (OSError, EOFError) as error:
        raise InputError(f"corpus {file}: cannot be read: {error}") from error


def _open(file: Path) -> BinaryIO:
    return gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")


def _jsonl_rows(data: BinaryIO) -> Iterator[Row]:
    for number, line in enumerate(data, 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            yield number, json.loads(line.decode()), None
        except UnicodeDecodeError as error:
            problem = f"not UTF-8 at byte {error.start} of the line; save it as UTF-8"
            yield number, None, problem
        except json.JSONDecodeError as error:
            if line.strip():
                yield number, None, f"not JSON at column {error.colno}: {error.msg}"
        except RecursionError:
            yield number, None, "not a record: JSON nested too deeply"


def _is_json_lines(data: BinaryIO) -> bool:
    """True if a `.json` file holds one record per line: the first line is one, and more follow."""
    first, rest = data.readline(_LINE), data.readline(_LINE)
    data.seek(0)
    try:
        return bool(rest.strip()) and isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _json_rows(data: BinaryIO, file: Path) -> Iterator[Row]:
    """Items of the file's list: the file itself, or the first list among its top-level fields."""
    import ijson  # here, so that the other formats do not need it

    number = 0
    try:
        prefix = _list_prefix(ijson.parse(data))
        if prefix is None:
            yield 1, None, "expected a JSON list of records, or an object with one in a field"
            return
        data.seek(0)
        for number, record in enumerate(ijson.items(data, prefix, use_float=True), 1):
            yield number, record, None
    except (ijson.JSONError, UnicodeDecodeError) as error:
        text = str(error).splitlines()[0]
        yield number + 1, None, f"not JSON here, and the rest of {file.name} is unread: {text}"


def _list_prefix(events: Iterable[tuple[str, str, object]]) -> str | None:
    for prefix, event, _ in events:
        if event == "start_array":
            return f"{prefix}.item" if prefix else "item"
        if not prefix and event not in ("start_map", "map_key"):
            return None
    return None


def _csv_rows(data: BinaryIO, delimiter: str) -> Iterator[Row]:
    """Records by the names of the header; a number is the line on which a row starts."""
    lines = _TextLines(data)
    reader = csv.reader(lines, delimiter=delimiter)
    header: list[str] | None = None
    while True:
        number, lines.bad = lines.number + 1, None
        try:
            values = next(reader, None)
        except csv.Error as error:
            yield number, None, f"not CSV: {error}"
            continue
        if values is None:
            return
        if lines.bad is not None:
            yield number, None, f"not UTF-8 at byte {lines.bad} of the line; save it as UTF-8"
        elif header is None:
            header = values
            if repeated := [a for a, b in pairwise(sorted(header)) if a == b]:
                yield number, None, f"the header names the column {repeated[0]!r} twice"
        elif len(values) == len(header):
            yield number, dict(zip(header, values, strict=True)), None
        elif values:
            yield number, None, f"{len(values)} values, but the header names {len(header)} columns"


class _TextLines:
    """Lines of a UTF-8 file; `bad` is the byte at which the last line is not UTF-8."""

    def __init__(self, data: BinaryIO) -> None:
        self._data = data
        self.number = 0
        self.bad: int | None = None

    def __iter__(self) -> "_TextLines":
        return self

    def __next__(self) -> str:
        line = next(self._data)
        self.number += 1
        if self.number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            self.bad = error.start
            return line.decode("utf-8", "replace")


def _parquet_rows(file: Path) -> Iterator[Row]:
    number = 0
    try:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(_BATCH):
                for record, problem in _decoded(batch):
                    number += 1
                    yield number, record, problem
    except (OSError, pa.ArrowException) as error:
        where = f"after row {number}" if number else "as Parquet"
        text = str(error).splitlines()[0]
        raise InputError(f"corpus {file}: cannot be read {where}: {text}") from error


def _decoded(batch: pa.RecordBatch) -> Iterator[tuple[object, str | None]]:
    try:
        yield from ((record, None) for record in batch.to_pylist())
    except UnicodeDecodeError:  # find the rows at fault
        for at in range(len(batch)):
            try:
                yield batch.slice(at, 1).to_pylist()[0], None
            except UnicodeDecodeError as error:
                yield None, f"not UTF-8 at byte {error.start} of a field; save it as UTF-8"
