"""Every format and shape in which a corpus can be written, each by a writer that is not ours."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Rows = Sequence[Mapping[str, str]]


def _csv(delimiter: str, **options: object) -> Callable[[Rows], bytes]:
    def write(rows: Rows) -> bytes:
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, **options)
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue().encode()

    return write


def _parquet(**options: object) -> Callable[[Rows], bytes]:
    def write(rows: Rows) -> bytes:
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(list(rows)), out, **options)
        return out.getvalue()

    return write


def _json(shape: Callable[[Rows], object], **options: object) -> Callable[[Rows], bytes]:
    return lambda rows: json.dumps(shape(rows), **options).encode()


def _joined(separator: str, end: str, **options: object) -> Callable[[Rows], bytes]:
    def write(rows: Rows) -> bytes:
        return (separator.join(json.dumps(row, **options) for row in rows) + end).encode()

    return write


def _split(rows: Rows) -> dict:
    names = list(rows[0])
    data = [[row[name] for name in names] for row in rows]
    return {"columns": names, "index": list(range(len(rows))), "data": data}


def _columns(rows: Rows) -> dict:
    return {name: {str(at): row[name] for at, row in enumerate(rows)} for name in rows[0]}


TEXT_SHAPES: dict[str, tuple[str, Callable[[Rows], bytes]]] = {
    "jsonl": (".jsonl", _joined("\n", "\n")),
    "jsonl, UTF-8, blank lines, no last line end": (
        ".jsonl", _joined("\n\n", "", ensure_ascii=False)),
    "jsonl, CRLF": (".jsonl", _joined("\r\n", "\r\n")),
    "json lines": (".json", _joined("\n", "\n")),
    "json list": (".json", _json(list)),
    "json list, indented": (".json", _json(list, indent=2, ensure_ascii=False)),
    "json objects one after another": (".json", _joined("\n", "", indent=1)),
    "json, one list in an object": (".json", _json(lambda r: {"v": [1], "data": list(r)})),
    "json, pandas split": (".json", _json(_split)),
    "json, pandas columns": (".json", _json(_columns)),
    "json, pandas index": (".json", _json(lambda r: {str(k): row for k, row in enumerate(r)})),
    "json, pandas table": (".json", _json(lambda r: {"schema": {"fields": []}, "data": list(r)})),
    "json, lists of values": (
        ".json", _json(lambda rows: {name: [row[name] for row in rows] for name in rows[0]})),
    "csv": (".csv", _csv(",")),
    "csv, all quoted": (".csv", _csv(",", quoting=csv.QUOTE_ALL, lineterminator="\n")),
    "tsv": (".tsv", _csv("\t", quoting=csv.QUOTE_NONNUMERIC)),
    "tsv, all quoted": (".tsv", _csv("\t", quoting=csv.QUOTE_ALL, lineterminator="\n")),
}  # fmt: skip
"""name -> (suffix, what writes rows of text)."""

SHAPES = {
    **TEXT_SHAPES,
    **{
        f"{name}, gzip": (f"{suffix}.gz", lambda rows, write=write: gzip.compress(write(rows)))
        for name, (suffix, write) in TEXT_SHAPES.items()
    },
    "parquet": (".parquet", _parquet()),
    "parquet, zstd, checksums": (
        ".parquet", _parquet(compression="zstd", write_page_checksum=True)),
    "parquet, plain, groups of 2": (
        ".parquet",
        _parquet(compression="none", use_dictionary=False, row_group_size=2),
    ),
}  # fmt: skip


def write_shape(folder: Path, shape: str, rows: Rows) -> Path:
    """Write rows in a shape; returns the file."""
    suffix, write = SHAPES[shape]
    file = folder / f"corpus{suffix}"
    file.write_bytes(write(rows))
    return file
