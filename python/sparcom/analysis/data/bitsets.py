"""Packed sets: sizes, all-pairs intersections, slices and column counts.

bits [n, bytes] uint8 hold one set a row; bit i % 8 of byte i // 8 is component i. Padding bits
are 0.
"""

import numpy as np

from sparcom.selection import bits as kernels

_BLOCK = 1024  # bytes of a row that are unpacked at once: 255 rows of them stay in cache


def set_sizes(bits: np.ndarray) -> np.ndarray:
    """[n] int64: how many components each row of bits [n, bytes] holds."""
    return np.bitwise_count(bits).sum(1, dtype=np.int64)


def intersections(bits: np.ndarray) -> np.ndarray:
    """[n, n] int64: |S_I & S_K| of every pair of rows; the diagonal holds the sizes.

    bits: [n, bytes] uint8, of any strides.
    """
    return kernels.intersections(np.ascontiguousarray(bits)).astype(np.int64)


def paired_intersections(bits: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[n] int64: |A_I & B_I|, row by row, of two [n, bytes] arrays."""
    return set_sizes(bits & others)


def column_counts(bits: np.ndarray) -> np.ndarray:
    """[8 * bytes] int32: how many rows hold each component."""
    out = np.zeros(8 * bits.shape[1], np.int32)
    for first in range(0, len(bits), 255):  # so that a byte holds the sum
        for start in range(0, bits.shape[1], _BLOCK):
            block = indicator(bits[first : first + 255, start : start + _BLOCK])
            out[8 * start : 8 * start + block.shape[1]] += np.add.reduce(block, 0, dtype=np.uint8)
    return out


def slice_bits(bits: np.ndarray, part: slice) -> np.ndarray:
    """[n, ceil(len / 8)] uint8: the components part.start..part.stop, from bit 0."""
    start, stop = part.start, part.stop
    if start % 8 == 0 and stop % 8 == 0:
        return bits[:, start // 8 : stop // 8]
    first = start // 8
    wide = indicator(bits[:, first : -(-stop // 8)])
    return pack(wide[:, start - 8 * first : stop - 8 * first])


def indicator(bits: np.ndarray) -> np.ndarray:
    """[n, 8 * bytes] uint8, 0 or 1: bits unpacked."""
    return np.unpackbits(bits, axis=1, bitorder="little")


def pack(mask: np.ndarray) -> np.ndarray:
    """[n, ceil(size / 8)] uint8 of a 0/1 mask [n, size]."""
    return np.packbits(mask, axis=1, bitorder="little")
