import numpy as np
import pytest

from sparcom.analysis.data.bitsets import (
    column_counts,
    indicator,
    intersections,
    pack,
    paired_intersections,
    set_sizes,
    slice_bits,
)

SIZES = [1, 7, 8, 9, 63, 64, 65, 8191, 8193]


def _mask(rows: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, size)) < 0.3


@pytest.mark.parametrize("size", SIZES)
def test_intersections_are_those_of_the_sets(size: int) -> None:
    mask = _mask(13, size)
    expected = mask.astype(int) @ mask.T.astype(int)
    np.testing.assert_array_equal(intersections(pack(mask)), expected)
    np.testing.assert_array_equal(set_sizes(pack(mask)), mask.sum(1))


@pytest.mark.parametrize("rows", [0, 1, 255, 256, 511])
@pytest.mark.parametrize("size", [1, 9, 8193])
def test_column_counts_do_not_overflow_a_byte(rows: int, size: int) -> None:
    mask = np.ones((rows, size), bool)
    mask[::3, ::2] = False
    np.testing.assert_array_equal(column_counts(pack(mask))[:size], mask.sum(0))


@pytest.mark.parametrize(
    "part", [slice(0, 8), slice(0, 5), slice(3, 11), slice(8, 40), slice(17, 41)]
)
def test_a_slice_starts_at_bit_zero_wherever_it_lies(part: slice) -> None:
    mask = _mask(5, 41)
    width = part.stop - part.start
    np.testing.assert_array_equal(indicator(slice_bits(pack(mask), part))[:, :width], mask[:, part])
    np.testing.assert_array_equal(set_sizes(slice_bits(pack(mask), part)), mask[:, part].sum(1))


def test_paired_intersections_go_row_by_row() -> None:
    a, b = _mask(9, 77, 1), _mask(9, 77, 2)
    np.testing.assert_array_equal(paired_intersections(pack(a), pack(b)), (a & b).sum(1))
