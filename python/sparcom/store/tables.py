"""Counts and sets as Arrow tables, and back: one row per instruction, one list per row."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from sparcom.components import ComponentSpace
from sparcom.counting.counted import Counted
from sparcom.selection.sets import Sets

FAILED_SCHEMA = pa.schema([pa.field("id", pa.string()), pa.field("reason", pa.string())])
SIGNS = ("up", "both")
"""Columns of counts: how often up was positive, and how often gate and up both were."""
_SET_BITS = ("neurons", "experts")
_SET_NUMBERS = ("cuts", "sizes", "expert_cuts", "expert_sizes")


def matrix_column(values: np.ndarray, kind: pa.DataType) -> pa.FixedSizeListArray:
    """[n, width] as a column of lists of `width` numbers."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1), kind)
    return pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(kind, values.shape[1]))


def packed_column(bits: np.ndarray) -> pa.FixedSizeBinaryArray:
    """[n, bytes] uint8 as a column of `bytes` bytes."""
    data = pa.py_buffer(np.ascontiguousarray(bits))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(bits.shape[1]), len(bits), [None, data])


def from_matrix(table: pa.Table, name: str) -> np.ndarray:
    """[n, width] int32 of a column that `matrix_column` made; width 0 where there is none."""
    if name not in table.column_names:
        return np.zeros((len(table), 0), np.int32)
    return stored_matrix(table, name).astype(np.int32)


def stored_matrix(table: pa.Table, name: str) -> np.ndarray:
    """[n, width] of a column of lists (`matrix_column`) or of sums (`sum_field`), as stored."""
    field = table.schema.field(name)
    if pa.types.is_fixed_size_binary(field.type):
        return from_packed(table, name).view(sum_dtype(field))
    array = table[name].combine_chunks()
    values = array.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(array), array.type.list_size)


def sum_field(name: str, width: int, kind: str) -> pa.Field:
    """A column of `width` numbers a row, kept as their bytes, whose type is in its metadata.

    As lists, Parquet would take five times as long to read and write them.
    kind: "uint16" | "uint32" | "float64", little-endian.
    """
    return pa.field(name, pa.binary(width * np.dtype(kind).itemsize), metadata={"type": kind})


def sum_dtype(field: pa.Field) -> np.dtype:
    """The type of the numbers of a `sum_field`."""
    return np.dtype(field.metadata[b"type"].decode()).newbyteorder("<")


def width_of(field: pa.Field) -> int:
    """How many numbers a row of a column of lists or sums has."""
    if pa.types.is_fixed_size_binary(field.type):
        return field.type.byte_width // sum_dtype(field).itemsize
    return field.type.list_size


def from_packed(table: pa.Table, name: str) -> np.ndarray:
    """[n, bytes] uint8 of a column that `packed_column` made; 0 bytes where there is none."""
    if name not in table.column_names:
        return np.zeros((len(table), 0), np.uint8)
    array = table[name].combine_chunks()
    width = array.type.byte_width
    data = np.frombuffer(array.buffers()[1] or b"", np.uint8)
    start = array.offset * width
    return data[start : start + len(array) * width].reshape(len(array), width)


def counts_table(counted: Counted) -> pa.Table:
    """Counts as Arrow: in 16 bits where T allows it, which every count of a part obeys."""
    kind = pa.uint16() if counted.tokens.max(initial=0) < 1 << 16 else pa.uint32()
    arrays = {"neurons": counted.neurons, "experts": counted.experts}
    if counted.signs is not None:
        arrays |= dict(zip(SIGNS, counted.signs, strict=True))
    return _table(
        counted.ids,
        counted.tokens,
        {
            n: matrix_column(a.astype(kind.to_pandas_dtype()), kind)
            for n, a in arrays.items()
            if a.shape[1]
        },
    )


def counts_of(table: pa.Table) -> Counted:
    """The counts of a table; their signs too if it has their columns."""
    return Counted(
        tuple(table["id"].to_pylist()),
        table["tokens"].to_numpy().astype(np.int64),
        from_matrix(table, "neurons"),
        from_matrix(table, "experts"),
        np.stack([from_matrix(table, n) for n in SIGNS]) if "up" in table.column_names else None,
    )


def sets_table(sets: Sets) -> pa.Table:
    columns = {
        n: matrix_column(getattr(sets, n), pa.int32()) for n in _SET_NUMBERS if _wide(sets, n)
    }
    columns |= {n: packed_column(getattr(sets, n)) for n in _SET_BITS if _wide(sets, n)}
    return _table(sets.ids, sets.tokens, columns)


def sets_of(table: pa.Table, space: ComponentSpace) -> Sets:
    return Sets(
        ids=tuple(table["id"].to_pylist()),
        tokens=table["tokens"].to_numpy().astype(np.int64),
        **{name: from_packed(table, name) for name in _SET_BITS},
        **{name: from_matrix(table, name) for name in _SET_NUMBERS},
        space=space,
    )


def _wide(sets: Sets, name: str) -> bool:
    """Whether a column has any width: Parquet knows no columns of zero bytes, so a dense model's
    sets have no expert columns."""
    return getattr(sets, name).shape[1] > 0


def _table(ids: Sequence[str], tokens: np.ndarray, columns: dict[str, pa.Array]) -> pa.Table:
    head = {"id": pa.array(ids, pa.string()), "tokens": pa.array(tokens, pa.int32())}
    return pa.table(head | columns)


def concat_sets(parts: Sequence[Sets]) -> Sets:
    """The sets of several parts, one after the other."""
    ids = tuple(name for part in parts for name in part.ids)
    arrays = ("tokens", "neurons", "cuts", "sizes", "experts", "expert_cuts", "expert_sizes")
    joined = {a: np.concatenate([getattr(p, a) for p in parts]) for a in arrays}
    return Sets(ids=ids, **joined, space=parts[0].space)


def concat_counted(parts: Sequence[Counted]) -> Counted:
    """The counts of several passes, one after the other."""
    ids = tuple(name for part in parts for name in part.ids)
    arrays = ("tokens", "neurons", "experts")
    joined = {a: np.concatenate([getattr(p, a) for p in parts]) for a in arrays}
    signs = [part.signs for part in parts if part.signs is not None]
    magnitudes = [part.magnitudes for part in parts if part.magnitudes is not None]
    return Counted(
        ids,
        **joined,
        signs=np.concatenate(signs, 1) if signs else None,
        magnitudes=magnitudes[0].joined(magnitudes[1:]) if magnitudes else None,
    )
