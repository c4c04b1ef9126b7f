"""Profiles as Arrow tables: sums over the instructions of each cell, one row a cell.

category, source, length, fold     the cell (`cells.py`); rows ascend by them
instructions, tokens               how many, and their T
ids                                which
neurons, experts                   per component, how many of them hold it in their set
neuron_counts, expert_counts       per component, its summed counts
up_counts, both_counts             per neuron, how often up was positive, and gate and up both
                                   (of a run with signs)

The columns of sums hold, a row, the bytes of little-endian numbers, whose type is in the column's
metadata (`tables.sum_field`).
"""

import numpy as np
import pyarrow as pa

from sparcom.counting.counted import Counted
from sparcom.errors import SparcomError
from sparcom.selection.sets import Sets
from sparcom.store.profiles.cells import KEYS
from sparcom.store.tables import packed_column, sum_field

SIGN_SUMS = ("up_counts", "both_counts")
SUMS = ("neurons", "neuron_counts", "experts", "expert_counts", *SIGN_SUMS)


def part_profile(counted: Counted, sets: Sets, keys: pa.Table) -> pa.Table:
    """The profile of one part.

    keys: the cell of each instruction of `counted`, in its order (`CellRule.keys`).
    """
    if counted.ids != sets.ids or len(keys) != len(counted.ids):
        raise SparcomError(
            f"profile: counts of {len(counted.ids)}, sets of {len(sets.ids)} and cells of "
            f"{len(keys)} instructions must be of the same ones, in the same order"
        )
    order, starts = _grouped(keys)
    first = order[starts] if len(order) else order
    sizes = np.diff([*starts, len(order)])
    tokens = _sums(counted.tokens, order, starts)
    kind = sum_kind(tokens)
    arrays = {
        "neurons": _members(sets.neurons, counted.neurons.shape[1], order, starts),
        "neuron_counts": _sums(counted.neurons, order, starts),
        "experts": _members(sets.experts, counted.experts.shape[1], order, starts),
        "expert_counts": _sums(counted.experts, order, starts),
    }
    if counted.signs is not None:
        for name, values in zip(SIGN_SUMS, counted.signs, strict=True):
            arrays[name] = _sums(values, order, starts)
    ids = pa.array([counted.ids[row] for row in order], pa.string())
    offsets = pa.array([*starts, len(order)], pa.int32())
    columns = {name: keys[name].take(pa.array(first)) for name in KEYS}
    columns["instructions"] = pa.array(sizes, pa.int64())
    columns["tokens"] = pa.array(tokens, pa.int64())
    columns["ids"] = pa.ListArray.from_arrays(offsets, ids)
    return with_sums(pa.table(columns), arrays, kind)


def sum_kind(tokens: np.ndarray) -> str:
    """The number type that holds every sum of a profile: none exceeds the tokens of its cell."""
    most = int(tokens.max(initial=0))
    if most >= 1 << 32:
        raise SparcomError(
            f"profile: {most} tokens in one cell; 32-bit sums hold no more than 2^32"
        )
    return "uint16" if most < 1 << 16 else "uint32"


def with_sums(table: pa.Table, arrays: dict[str, np.ndarray], kind: str) -> pa.Table:
    """The table with the columns of `SUMS` that have any width (a dense model has no experts)."""
    for name, values in arrays.items():
        if width := values.shape[1]:
            data = np.ascontiguousarray(values, np.dtype(kind).newbyteorder("<"))
            column = packed_column(data.view(np.uint8))
            table = table.append_column(sum_field(name, width, kind), column)
    return table


def _grouped(keys: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """(order, starts): rows sorted by cell, and where each cell starts in them."""
    columns = [keys[name].to_numpy(zero_copy_only=False) for name in reversed(KEYS)]
    order = np.lexsort([np.asarray(c, dtype=str) if c.dtype == object else c for c in columns])
    new = np.zeros(len(order), bool)
    new[:1] = True
    for column in columns:
        sorted_ = column[order]
        new[1:] |= sorted_[1:] != sorted_[:-1]
    return order.astype(np.int64), np.flatnonzero(new)


def _sums(values: np.ndarray, order: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """[cells, ...] sums of rows of `values`, in 64 bits for vectors and 32 for matrices."""
    kind = np.int64 if values.ndim == 1 else np.uint32
    if not len(starts):
        return np.zeros((0, *values.shape[1:]), kind)
    return np.add.reduceat(values[order], starts, axis=0, dtype=kind)


def _members(
    bits: np.ndarray, components: int, order: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """[cells, components]: how many sets of each cell hold each component."""
    if not len(starts):
        return np.zeros((0, components), np.uint32)
    wide = np.unpackbits(bits[order], axis=1, count=components, bitorder="little")
    return np.add.reduceat(wide, starts, axis=0, dtype=np.uint32)
