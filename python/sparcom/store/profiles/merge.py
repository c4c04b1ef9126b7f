"""Merging profiles: sums of cells, whatever the order and grouping; ids stay disjoint.

Merging is associative and commutative in its sums of integers. Those of magnitudes are added in the
order of the files, which are the same sixteen neighbours whatever the order of counting. Cells are
merged a window at a time, so that memory is bounded by `WINDOW_BYTES` and one row group of each
file, not by the corpus.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sparcom.errors import InputError
from sparcom.store.profiles.cells import KEYS
from sparcom.store.profiles.profile_part import (
    COLUMNS,
    SUMS,
    combine,
    nothing,
    sum_kind,
    with_sums,
)
from sparcom.store.profiles.spans import Span
from sparcom.store.stamped import StampedFiles
from sparcom.store.tables import stored_matrix, sum_dtype, sum_field, width_of

WINDOW_BYTES = 64 << 20
GROUP_BYTES = 4 << 20
_SCALARS = (*KEYS, "instructions", "tokens")
_BYTES_PER_ID = 64


def write_profile(files: StampedFiles, span: Span, table: pa.Table) -> None:
    """Write the profile of a span, in row groups of about `GROUP_BYTES`."""
    metadata = files.metadata(span)
    schema = table.schema.with_metadata(metadata)
    with files.files.writing(files.name(span)) as sink, _writer(sink, schema) as writer:
        writer.write_table(table.replace_schema_metadata(metadata), _rows_of_group(schema))


def merge_profiles(files: StampedFiles, spans: Sequence[Span], target: Span) -> None:
    """Merge profile files into one, which appears whole.

    Raises InputError if they belong to another run, or hold an instruction twice.
    """
    names = [files.name(span) for span in spans]
    with ExitStack() as stack:
        opened = [stack.enter_context(files.open(span)) for span in spans]
        cells, at = _align(opened)
        kind = sum_kind(cells["tokens"].to_numpy())
        schema = _schema(opened, kind).with_metadata(files.metadata(target))
        sink = stack.enter_context(files.files.writing(files.name(target)))
        writer = stack.enter_context(_writer(sink, schema))
        if not len(cells):
            writer.write_table(schema.empty_table())
        for start, stop in windows(cells, schema):
            table = _merge_window(opened, names, at, cells, (start, stop), kind)
            writer.write_table(table.cast(schema), _rows_of_group(schema))
    pa.default_memory_pool().release_unused()  # a driver merges again and again


def read_sums(
    files: StampedFiles, spans: Sequence[Span], by: Sequence[str], columns: Sequence[str]
) -> tuple[pa.Table, dict[str, np.ndarray]]:
    """Sums of profiles over everything but the keys `by`, in ascending order of these.

    columns: some of `COLUMNS`. Returns the cells (`by`, instructions, tokens), and per column
    [cells, components] uint32, or float64 of magnitudes. Memory: the result, and one row group.
    """
    with ExitStack() as stack:
        opened = [stack.enter_context(files.open(span)) for span in spans]
        keys = pa.concat_tables([f.read(columns=list(_SCALARS)) for f in opened])
        cells, index = _distinct(keys, by)
        sum_kind(cells["tokens"].to_numpy())
        sums: dict[str, np.ndarray] = {}
        row = 0
        for file in opened:
            held = [name for name in columns if name in file.schema_arrow.names]
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=held)
                target = index[row : row + len(table)]
                for name in held:
                    values = stored_matrix(table, name)
                    if name not in sums:
                        sums[name] = nothing(name, len(cells), values.shape[1])
                    for cell, numbers in zip(target, values, strict=True):
                        combine(name)(sums[name][cell], numbers, out=sums[name][cell])
                row += len(table)
    return cells, sums


def _align(opened: Sequence[pq.ParquetFile]) -> tuple[pa.Table, list[np.ndarray]]:
    """(cells of all files in ascending order, for each file the cell of each of its rows)."""
    keys = [file.read(columns=list(_SCALARS)) for file in opened]
    cells, index = _distinct(pa.concat_tables(keys), KEYS)
    return cells, np.split(index, np.cumsum([len(k) for k in keys])[:-1])


def _distinct(keys: pa.Table, by: Sequence[str]) -> tuple[pa.Table, np.ndarray]:
    """(distinct keys ascending with summed instructions and tokens, the one of each row)."""
    sums = [("instructions", "sum"), ("tokens", "sum")]
    cells = keys.group_by(list(by)).aggregate(sums)
    cells = cells.rename_columns([n.removesuffix("_sum") for n in cells.column_names])
    cells = cells.select([*by, "instructions", "tokens"]).sort_by([(n, "ascending") for n in by])
    numbered = cells.select(list(by)).append_column("cell", pa.array(np.arange(len(cells))))
    rows = keys.select(list(by)).append_column("row", pa.array(np.arange(len(keys))))
    joined = rows.join(numbered, list(by)).sort_by("row")
    return cells, joined["cell"].to_numpy().astype(np.int64)


@dataclass(frozen=True)
class _Source:
    """Rows of one file: which, and the place of each in the window."""

    file: pq.ParquetFile
    rows: tuple[int, int]
    places: np.ndarray


def _merge_window(
    opened: Sequence[pq.ParquetFile],
    names: Sequence[str],
    at: Sequence[np.ndarray],
    cells: pa.Table,
    window: tuple[int, int],
    kind: str,
) -> pa.Table:
    """The merged rows of the cells in a window."""
    start, stop = window
    sums: dict[str, np.ndarray] = {}
    ids: list[pa.ListArray] = []
    places: list[np.ndarray] = []
    for file, index in zip(opened, at, strict=True):
        rows = (int(np.searchsorted(index, start)), int(np.searchsorted(index, stop)))
        source = _Source(file, rows, index[rows[0] : rows[1]] - start)
        for table, place in _groups(source):
            ids.append(table["ids"].combine_chunks())
            places.append(place)
            for name in COLUMNS:
                if name in table.column_names:
                    values = stored_matrix(table, name)
                    if name not in sums:
                        sums[name] = nothing(name, stop - start, values.shape[1])
                    # a file holds a cell once
                    sums[name][place] = combine(name)(sums[name][place], values)
    columns = {name: cells[name].slice(start, stop - start) for name in _SCALARS}
    columns["ids"] = _joined_ids(ids, np.concatenate(places), stop - start, names)
    return with_sums(pa.table(columns), sums, kind)


def _groups(source: _Source) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """(rows, their places) of the row groups of a file that hold some of the wanted rows."""
    first, stop = source.rows
    base = 0
    for group in range(source.file.num_row_groups):
        size = source.file.metadata.row_group(group).num_rows
        a, b = max(first, base), min(stop, base + size)
        if a < b:
            table = source.file.read_row_group(group).slice(a - base, b - a)
            yield table, source.places[a - first : b - first]
        base += size


def _joined_ids(
    ids: Sequence[pa.ListArray], places: np.ndarray, cells: int, names: Sequence[str]
) -> pa.ListArray:
    """The ids of each cell, files in their order; an id that comes twice is an error."""
    order = np.argsort(places, kind="stable")
    lists = pa.concat_arrays(ids).take(pa.array(order))
    flat = lists.flatten()
    counted = pc.value_counts(flat)
    twice = pc.index(pc.greater(counted.field("counts"), 1), True).as_py()
    if twice >= 0:
        raise InputError(
            f"profiles: instruction {counted.field('values')[twice].as_py()!r} is in two of "
            f"{', '.join(names)}; only profiles of disjoint instructions can be merged"
        )
    lengths = np.bincount(
        places[order], pc.list_value_length(lists).to_numpy(zero_copy_only=False), cells
    )
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), flat)


def _schema(opened: Sequence[pq.ParquetFile], kind: str) -> pa.Schema:
    """The schema of the merged file: that of the files, its sums in the type that holds all.

    A file without instructions may lack the sums of signs and magnitudes.
    """
    first = max((file.schema_arrow for file in opened), key=len)
    return pa.schema(
        sum_field(f.name, width_of(f), kind) if f.name in SUMS else f.with_nullable(True)
        for f in first
    )


def _writer(sink: object, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True)


def _row_bytes(schema: pa.Schema, item: int) -> int:
    """Bytes of a row whose sums take `item` bytes each."""
    widths = {n: width_of(schema.field(n)) for n in COLUMNS if n in schema.names}
    return 256 + sum(width * (item if n in SUMS else 8) for n, width in widths.items())


def _rows_of_group(schema: pa.Schema) -> int:
    item = next((sum_dtype(schema.field(n)).itemsize for n in SUMS if n in schema.names), 0)
    return max(1, GROUP_BYTES // _row_bytes(schema, item))


def windows(cells: pa.Table, schema: pa.Schema) -> Iterator[tuple[int, int]]:
    """Ranges of cells that are merged at once: `WINDOW_BYTES` of 32-bit sums and of ids."""
    weight = _row_bytes(schema, 4) + _BYTES_PER_ID * cells["instructions"].to_numpy()
    start, used = 0, 0
    for cell, size in enumerate(weight):
        if used and used + size > WINDOW_BYTES:
            yield start, cell
            start, used = cell, 0
        used += int(size)
    if used:
        yield start, len(cells)
