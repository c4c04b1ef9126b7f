"""Packed sets in plain torch, on any device: the twins of sparcom.selection.bits, for counts on a GPU.

The same sets, bit for bit, as `sparcom.selection.bits` selects on the CPU, so that sets can be packed where
the counts are and 1 bit per component travels, not 32. Tested on the CPU; no GPU has run it yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparcom.errors import InputError
from sparcom.selection.bits import TIES, ranges_of

DIGIT = 16  # bits of a count that one histogram tells apart
PIECE = 8192  # bytes of each set that are unpacked at a time


@dataclass(frozen=True)
class Selected:
    """As sparcom.selection.bits.Selected, on the device of the counts.

    bits: [rows, ceil(components / 8)] uint8; cuts, sizes: [rows, groups] int32.
    """

    bits: Tensor
    cuts: Tensor
    sizes: Tensor


def select(
    counts: Tensor,
    *,
    sizes: Sequence[int] | int,
    groups: Sequence[Sequence[slice]] | None = None,
    ties: str = "inclusive",
) -> Selected:
    """The components with the highest counts, of every row and group, as sparcom.selection.bits.select.

    The cut is found by a histogram of each row's counts: one, or two where a count exceeds 65,535.

    counts: [rows, components] int32, on any device.
    sizes: [groups], at least 1: the nominal size of each group, or one for a single group.
    groups: what is ranked together, each some slices of the components that do not overlap;
        None: one group of all.
    ties: a key of sparcom.selection.bits.TIES.

    Raises InputError for wrong shapes, dtypes, sizes and groups.

    >>> select(torch.tensor([[5, 0, 3, 5]], dtype=torch.int32), sizes=1).bits
    tensor([[9]], dtype=torch.uint8)
    """
    if counts.dim() != 2 or counts.dtype is not torch.int32:
        _fail("select", "counts", "[rows, components] int32", counts)
    if ties not in TIES:
        raise InputError(f"select: ties must be one of {', '.join(TIES)}, got {ties!r}")
    ranges, offsets = ranges_of(groups, counts.shape[1])
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    if len(sizes) != len(offsets) - 1 or min(sizes, default=1) < 1:
        raise InputError(
            f"select: sizes must be {len(offsets) - 1} numbers of at least 1, one per group, "
            f"got {sizes}"
        )
    chosen = torch.zeros(counts.shape, dtype=torch.bool, device=counts.device)
    cuts = torch.zeros(len(counts), len(sizes), dtype=torch.int32, device=counts.device)
    selected = torch.zeros_like(cuts)
    for g, size in enumerate(sizes):
        index = torch.cat(
            [torch.arange(*r, device=counts.device) for r in ranges[offsets[g] : offsets[g + 1]]]
            or [torch.arange(0, device=counts.device)]
        )
        members, cut = _select_group(counts[:, index].long().clamp(min=0), index, size, ties)
        chosen[:, index] = members
        cuts[:, g] = cut
        selected[:, g] = members.sum(1)
    return Selected(pack(chosen), cuts, selected)


def _select_group(values: Tensor, index: Tensor, size: int, ties: str) -> tuple[Tensor, Tensor]:
    """(members [rows, n] bool, cut [rows] int64) of one group; values: [rows, n] int64, >= 0."""
    nominal = size_th_highest(values, size)
    cut = nominal + 1 if ties == "exclusive" else nominal.clamp(min=1)
    members = values >= cut[:, None]
    if ties != "exact":
        return members, cut
    above = values > cut[:, None]
    room = size - above.sum(1)  # for those at the cut, which come in the order of their hash
    order = torch.argsort(splitmix64(index) ^ torch.iinfo(torch.int64).min)  # unsigned
    tied = (members & ~above)[:, order]
    kept = torch.empty_like(tied)
    kept[:, order] = tied & (tied.cumsum(1) <= room[:, None])
    return above | kept, cut


def size_th_highest(values: Tensor, size: int) -> Tensor:
    """[rows] int64: the size-th highest of each row of values [rows, n] int64 in 0..2^31-1.

    0 where n < size.
    """
    rows, n = values.shape
    found = values.new_zeros(rows)
    if n < size or rows == 0:
        return found
    top = int(values.max())
    wanted = values.new_full((rows,), size)
    candidates = torch.ones_like(values)
    for shift in (DIGIT, 0) if top >> DIGIT else (0,):
        digit = values >> shift & (1 << DIGIT) - 1
        bins = min(top >> shift, (1 << DIGIT) - 1) + 2  # the last one stays empty
        histogram = values.new_zeros(rows, bins).scatter_add_(1, digit, candidates)
        reached_by = histogram.flip(1).cumsum(1).flip(1)  # how many have this digit or a higher one
        cut = (reached_by >= wanted[:, None]).sum(1) - 1
        wanted = wanted - reached_by.gather(1, cut[:, None] + 1)[:, 0]
        candidates = candidates * (digit == cut[:, None])
        found = found << DIGIT | cut
    return found


def splitmix64(index: Tensor) -> Tensor:
    """The hash that breaks ties, of int64; its 64 bits are to be read as unsigned."""

    def mixed(z: Tensor, shift: int, factor: int) -> Tensor:
        return (z ^ (z >> shift & (1 << 64 - shift) - 1)) * factor

    z = index + (0x9E3779B97F4A7C15 - 2**64)
    z = mixed(z, 30, 0xBF58476D1CE4E5B9 - 2**64)
    z = mixed(z, 27, 0x94D049BB133111EB - 2**64)
    return mixed(z, 31, 1)


def pack(members: Tensor) -> Tensor:
    """[rows, ceil(n / 8)] uint8, little-endian, of [rows, n] bool."""
    rows, n = members.shape
    whole = members.new_zeros(rows, (n + 7) // 8 * 8)
    whole[:, :n] = members
    weights = 1 << torch.arange(8, device=members.device, dtype=torch.uint8)
    return (whole.view(rows, whole.shape[1] // 8, 8) * weights).sum(2, dtype=torch.uint8)


def unpack(bits: Tensor) -> Tensor:
    """[rows, 8 * bytes] float32, 0 or 1, of [rows, bytes] uint8."""
    places = torch.arange(8, device=bits.device, dtype=torch.uint8)
    return (bits[:, :, None] >> places & 1).flatten(1).float()


def intersections(a: Tensor, b: Tensor | None = None) -> Tensor:
    """The sizes of all pairwise intersections, a product of 0/1 matrices.

        out[i, j] = |a_i & b_j|

    a, b: [n, bytes] and [m, bytes] uint8, packed sets, on one device; b None: a itself.

    Returns [n, m] int32, exact: each float sum is of at most 65,536 ones. Raises InputError for
    wrong shapes and dtypes.

    >>> intersections(torch.tensor([[3], [5]], dtype=torch.uint8)).tolist()
    [[2, 1], [1, 2]]
    """
    for name, x in (("a", a), ("b", a if b is None else b)):
        if x.dim() != 2 or x.dtype is not torch.uint8 or x.shape[1] != a.shape[1]:
            _fail("intersections", name, f"[sets, {a.shape[-1]}] uint8", x)
    b = a if b is None else b
    out = torch.zeros(len(a), len(b), dtype=torch.int32, device=a.device)
    for first in range(0, a.shape[1], PIECE):
        x, y = (unpack(m[:, first : first + PIECE]) for m in (a, b))
        out += (x @ y.T).to(torch.int32)
    return out


def _fail(function: str, name: str, expected: str, x: Tensor) -> None:
    raise InputError(
        f"{function}: {name} must be {expected}; got {list(x.shape)} "
        f"{str(x.dtype).removeprefix('torch.')}"
    )
