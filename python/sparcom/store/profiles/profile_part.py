"""Profiles as Arrow tables: sums over the instructions of each cell, one row a cell.

category, source, length, fold     the cell (`cells.py`); rows ascend by them
instructions, tokens               how many, and their T
ids                                which
neurons, experts                   per component, how many of them hold it in their set
neuron_counts, expert_counts       per component, its summed counts
up_counts, both_counts             per neuron, how often up was positive, and gate and up both
                                   (of a run with signs)
h_sums, h_absolutes, h_largest     per neuron, sum of h, sum of |h|, maximum of h (of a run with
                                   magnitudes); -inf: no counted token reached the neuron
weight_sums, norm_sums,            per expert, sums of g, ||y||, ||y||^2 and g ||y|| (of a run with
square_sums, product_sums          magnitudes: `counting.magnitudes`)

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

MAGNITUDES = {
    "h_sums": "sums", "h_absolutes": "absolutes", "h_largest": "largest", "weight_sums": "weights",
    "norm_sums": "norms", "square_sums": "squares", "product_sums": "products",
}  # fmt: skip
"""Columns of float64, and the field of `Magnitudes` that each adds up, instruction by instruction
in the order of the part, or of which it is the maximum."""
COLUMNS = (*SUMS, *MAGNITUDES)


def nothing(name: str, cells: int, width: int) -> np.ndarray:
    """[cells, width] of a column before anything is added to it."""
    if name not in MAGNITUDES:
        return np.zeros((cells, width), np.uint32)
    return np.full((cells, width), -np.inf if name == "h_largest" else 0.0)


def combine(name: str) -> np.ufunc:
    """How the values of a column for two groups of instructions become that for both."""
    return np.maximum if name == "h_largest" else np.add


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
    if counted.magnitudes is not None:
        for name, field in MAGNITUDES.items():
            values = getattr(counted.magnitudes, field)
            arrays[name] = _reduced(combine(name), values, order, starts)
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
    """The table with the columns that have any width (a dense model has no experts).

    kind: the number type of `SUMS`.
    """
    for name, values in arrays.items():
        if width := values.shape[1]:
            own = "float64" if name in MAGNITUDES else kind
            data = np.ascontiguousarray(values, np.dtype(own).newbyteorder("<"))
            column = packed_column(data.view(np.uint8))
            table = table.append_column(sum_field(name, width, own), column)
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


def _reduced(
    how: np.ufunc, values: np.ndarray, order: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """[cells, components] float64, one row of `values` after the other."""
    out = np.zeros((len(starts), values.shape[1]))
    for cell, rows in enumerate(np.split(order, starts[1:]) if len(starts) else ()):
        out[cell] = values[rows[0]]
        for row in rows[1:]:
            how(out[cell], values[row], out=out[cell])
    return out


def _members(
    bits: np.ndarray, components: int, order: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """[cells, components]: how many sets of each cell hold each component."""
    if not len(starts):
        return np.zeros((0, components), np.uint32)
    wide = np.unpackbits(bits[order], axis=1, count=components, bitorder="little")
    return np.add.reduceat(wide, starts, axis=0, dtype=np.uint32)
