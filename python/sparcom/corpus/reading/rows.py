"""Rows of corpus files: JSONL, JSON, CSV, TSV (each also as .gz) and Parquet, streamed.

Data sets are often published as JSON lines under the name .json; such a file is read as JSON lines.

A file yields `(number, record, problem)` per row. The number counts from 1: lines of a text file,
rows of any other. A row that cannot be decoded has a problem and no record; the next rows follow.
"""

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from sparcom.corpus.reading.files import check_content, is_packed, suffix_of
from sparcom.corpus.reading.formats.delimited_file import delimited_rows
from sparcom.corpus.reading.formats.json_document import json_document_rows
from sparcom.corpus.reading.formats.json_lines import json_line_rows
from sparcom.corpus.reading.formats.json_stream import JsonStream
from sparcom.corpus.reading.formats.lines import Lines
from sparcom.corpus.reading.formats.parquet_file import parquet_rows
from sparcom.corpus.reading.formats.row import Row
from sparcom.corpus.reading.guard import DAMAGE, UnreadableError, reason_of

_FIRST_LINE = 1 << 20  # bytes within which the first of several JSON lines must end
_BLOCK = 1 << 20  # bytes that are unpacked at a time, to verify a .gz file


def read_rows(file: Path, records: str | None = None) -> Iterator[Row]:
    """All rows of one file, in bounded memory.

    records: the field of a JSON object that holds the records; None finds it.
    Raises UnreadableError, which names the last row, if the file cannot be read to its end.
    """
    number = 0
    check_content(file)
    try:
        is_parquet = suffix_of(file) == ".parquet"
        for row in parquet_rows(file) if is_parquet else _text_rows(file, records):
            number = row[0]
            yield row
    except DAMAGE as error:
        after = f" after {unit_of(file)}{number}" if number else ""
        raise UnreadableError(str(file), f"cannot be read{after}: {reason_of(error)}") from error


def unit_of(file: Path) -> str:
    """What the numbers of a file's rows count, for messages: lines ("") or "row "."""
    return "" if suffix_of(file) in (".jsonl", ".csv", ".tsv") else "row "


def _text_rows(file: Path, records: str | None) -> Iterator[Row]:
    with _open(file) as data:
        size = None if is_packed(file) else os.fstat(data.fileno()).st_size

        def lines() -> Lines:
            data.seek(0)
            return Lines(data)

        suffix = suffix_of(file)
        if suffix in (".csv", ".tsv"):
            yield from delimited_rows(lines, "\t" if suffix == ".tsv" else ",")
        elif suffix == ".jsonl" or _is_json_lines(data):
            if records is not None:
                raise ValueError(f"--records {records}: only a JSON object has fields to choose")
            yield from json_line_rows(lines())
        else:
            yield from json_document_rows(lambda: JsonStream(data), records)
            return
        if size is not None and data.tell() != size:
            raise ValueError("it changed while it was read")


def _open(file: Path) -> IO[bytes]:
    """A file for reading; a .gz file is verified by its checksum before any byte is believed."""
    if not is_packed(file):
        return file.open("rb")
    with gzip.open(file, "rb") as data:
        while data.read(_BLOCK):
            pass
    return cast(IO[bytes], gzip.open(file, "rb"))


def _is_json_lines(data: IO[bytes]) -> bool:
    """True if a `.json` file holds one record per line: the first line is one, and more follow."""
    data.seek(0)
    first, rest = data.readline(_FIRST_LINE), data.readline(_FIRST_LINE)
    try:
        return bool(rest.strip()) and isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False
