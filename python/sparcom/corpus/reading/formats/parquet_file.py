"""Rows of Parquet files, in batches."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sparcom.corpus.reading.formats.row import Row
from sparcom.corpus.reading.guard import reason_of

_BATCH = 4096  # rows that are decoded at a time


def parquet_rows(file: Path) -> Iterator[Row]:
    """All rows; one whose values Python cannot hold is a problem of its own.

    Raises ValueError or a pa.ArrowException if the file is damaged, or names a column twice.
    """
    number = 0
    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        _check_names(parquet.schema_arrow, "")
        for batch in parquet.iter_batches(_BATCH):
            for record, problem in _decoded(batch):
                number += 1
                yield number, record, problem
        expected = parquet.metadata.num_rows
    if number != expected:
        raise ValueError(f"the file says that it holds {expected} rows, and {number} were found")


def _check_names(fields: pa.Schema | pa.StructType, inside: str) -> None:
    """Raise ValueError if a schema or a struct has two fields of one name."""
    for name, n in Counter(field.name for field in fields).most_common(1):
        if n > 1:
            raise ValueError(f"the column {inside + name!r} comes twice")
    for field in fields:
        kind = field.type
        while hasattr(kind, "value_type"):  # of lists, and of dictionaries
            kind = kind.value_type
        if pa.types.is_struct(kind):
            _check_names(list(kind), f"{inside}{field.name}.")


def _decoded(batch: pa.RecordBatch) -> Iterator[tuple[object, str | None]]:
    try:
        rows = batch.to_pylist()
    except (ValueError, ArithmeticError):  # text that is not UTF-8, or a date out of range
        for at in range(len(batch)):
            yield _decoded_row(batch.slice(at, 1))
    else:
        yield from ((row, None) for row in rows)


def _decoded_row(row: pa.RecordBatch) -> tuple[object, str | None]:
    for name, column in zip(row.schema.names, row.columns, strict=True):
        try:
            column.to_pylist()
        except UnicodeDecodeError as error:
            problem = f"field {name!r} is not UTF-8 at its byte {error.start}; save it as UTF-8"
            return None, problem
        except (ValueError, ArithmeticError) as error:
            return None, f"field {name!r} cannot be read: {reason_of(error)}"
    return row.to_pylist()[0], None
