"""Sets of components as packed bits: native kernels select them from counts and intersect them.

A set over n components is `ceil(n / 8)` uint8: bit `i % 8` of byte `i // 8` is component i, as
`numpy.packbits(bitorder="little")` writes it; bits from n on are 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from sparcom import native
from sparcom.errors import InputError

TIES = ("inclusive", "exclusive", "exact")  # in the order of `Ties` in csrc/cpu/bits/bits.h


@dataclass(frozen=True)
class Selected:
    """The sets of some rows of counts.

    bits: [rows, ceil(components / 8)] uint8, packed.
    cuts: [rows, groups] int32, the count from which on a component is selected; ties="exact" leaves
        out some of those with exactly this count. Where nothing is selected, it is one more than
        the highest count of the group (at most 2^31 - 1), or the cut that was given.
    sizes: [rows, groups] int32, how many components are selected.
    """

    bits: np.ndarray
    cuts: np.ndarray
    sizes: np.ndarray


def select(
    counts: np.ndarray,
    *,
    sizes: Sequence[int] | int | None = None,
    cuts: np.ndarray | None = None,
    groups: Sequence[Sequence[slice]] | None = None,
    ties: str = "inclusive",
) -> Selected:
    """The components with the highest counts, of every row and group.

        nominal = the size-th highest count of the group (0 if the group is smaller)
        inclusive: count >= max(nominal, 1)     exclusive: count > nominal
        exact: inclusive, minus the surplus among those at the cut: the highest
               splitmix64(component) go first, an order that favours no layer

    A count of 0 (or less) is never selected.

    counts: [rows, components] int32, C-contiguous; read in place, never copied.
    sizes: [groups], at least 1: the nominal size, ceil(eps * components) for a top fraction eps.
    cuts: [rows, groups] int32, instead of sizes: select count >= max(cut, 1).
    groups: the slices of components that are ranked together, none overlapping another;
        None: one group of all components.
    ties: one of TIES; only with sizes.

    Returns packed sets, cuts and achieved sizes. Raises InputError for wrong shapes, dtypes, sizes
    and groups. The rules are those of the paper (arXiv 2505.21191). The threads share the rows.

    >>> s = select(np.array([[5, 0, 3, 5]], np.int32), sizes=1)
    >>> s.bits, s.cuts, s.sizes
    (array([[9]], dtype=uint8), array([[5]], dtype=int32), array([[2]], dtype=int32))
    """
    if counts.ndim != 2 or counts.dtype != np.int32 or not counts.flags.c_contiguous:
        _fail("select", "counts", "[rows, components] int32, C-contiguous", counts)
    rows, components = counts.shape
    if ties not in TIES:
        raise InputError(f"select: ties must be one of {', '.join(TIES)}, got {ties!r}")
    ranges, offsets = ranges_of(groups, components)
    n_groups = len(offsets) - 1
    nominal: list[int] = []
    if sizes is not None and cuts is None:
        nominal = [int(size) for size in np.atleast_1d(np.asarray(sizes))]
        if len(nominal) != n_groups or min(nominal, default=1) < 1:
            raise InputError(
                f"select: sizes must be {n_groups} numbers of at least 1, one per group, "
                f"got {nominal}"
            )
        cuts = np.empty((rows, n_groups), np.int32)
    elif cuts is not None and sizes is None:
        if cuts.shape != (rows, n_groups) or cuts.dtype != np.int32:
            _fail("select", "cuts", f"[{rows}, {n_groups}] int32", cuts)
        cuts = cuts.copy(order="C")
    else:
        raise InputError("select: give either sizes or cuts")
    selected = np.empty((rows, n_groups), np.int32)
    bits = np.empty((rows, (components + 7) // 8), np.uint8)
    native.cpu().select(counts, ranges, offsets, nominal, TIES.index(ties), cuts, selected, bits)
    return Selected(bits, cuts, selected)


def intersections(a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """The sizes of the intersections of all pairs of sets.

        out[i, j] = |a_i & b_j|

    a: [n, bytes] uint8, packed sets, C-contiguous.
    b: [m, bytes] uint8, likewise; None: a itself, where half of the matrix is computed.

    Returns [n, m] int32. Raises InputError for wrong shapes and dtypes.

    >>> intersections(np.array([[3], [5]], np.uint8))
    array([[2, 1],
           [1, 2]], dtype=int32)
    """
    for name, x in (("a", a), ("b", a if b is None else b)):
        if x.ndim != 2 or x.dtype != np.uint8 or not x.flags.c_contiguous:
            _fail("intersections", name, "[sets, bytes] uint8, C-contiguous", x)
    b = a if b is None else b
    if b.shape[1] != a.shape[1]:
        _fail("intersections", "b", f"[sets, {a.shape[1]}] uint8 as a is", b)
    out = np.empty((len(a), len(b)), np.int32)
    native.cpu().intersections(a, b, out)
    return out


def ranges_of(
    groups: Sequence[Sequence[slice]] | None, components: int
) -> tuple[list[tuple[int, int]], list[int]]:
    """(ranges of all groups, index of each group's first range), checked."""
    if groups is None:
        return [(0, components)], [0, 1]
    ranges = [(s.start or 0, components if s.stop is None else s.stop) for g in groups for s in g]
    offsets = [0, *np.cumsum([len(g) for g in groups], dtype=int).tolist()]
    previous = 0
    for begin, end in sorted(ranges):
        if begin < previous or end < begin or end > components:
            raise InputError(
                f"select: groups must be slices within 0:{components} that do not overlap, got "
                f"{begin}:{end} after {previous}"
            )
        previous = end
    return ranges, offsets


def _fail(function: str, name: str, expected: str, x: np.ndarray) -> NoReturn:
    layout = "C-contiguous" if x.flags.c_contiguous else "not C-contiguous"
    raise InputError(
        f"{function}: {name} must be {expected}; got {list(x.shape)} {x.dtype}, {layout}"
    )
