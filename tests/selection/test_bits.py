"""Packed sets: cuts and tie rules against plain NumPy, all pairs against bitwise counts."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_selection import INT32_MAX, select_top, splitmix64

from sparcom.errors import InputError
from sparcom.selection import bits


def check(counts: np.ndarray, groups: list[list[slice]] | None, sizes: list[int], ties: str):
    found = bits.select(counts, groups=groups, sizes=sizes, ties=ties)
    everything = np.arange(counts.shape[1])
    for row, values in enumerate(counts):
        expected = np.zeros(counts.shape[1], bool)
        for g, group in enumerate(groups or [[slice(0, None)]]):
            index = np.concatenate([everything[s] for s in group] or [everything[:0]])
            chosen, cut = select_top(values, index, sizes[g], ties)
            expected[chosen] = True
            assert found.cuts[row, g] == cut
            assert found.sizes[row, g] == len(chosen)
        packed = np.packbits(expected, bitorder="little")
        np.testing.assert_array_equal(found.bits[row], packed)


def skewed(rows: int, n: int, top: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.binomial(top, rng.beta(0.3, 1.5, n), (rows, n)).astype(np.int32)


@pytest.mark.parametrize("ties", bits.TIES)
@pytest.mark.parametrize("n", [0, 1, 7, 8, 63, 64, 65, 1000, 16384, 16385, 40000])
def test_select_equals_sorting(n: int, ties: str) -> None:
    for top in (1, 60, 5000):
        for size in (1, max(1, n // 100), n, n + 5):
            if size:
                check(skewed(2, n, top, seed=n), None, [size], ties)


@settings(max_examples=200)
@given(data=st.data(), ties=st.sampled_from(bits.TIES), seed=st.integers(0, 10**6))
def test_property_select_of_groups(data: st.DataObject, ties: str, seed: int) -> None:
    lengths = data.draw(st.lists(st.integers(0, 90), min_size=1, max_size=8))
    ends = np.cumsum([0, *lengths]).tolist()
    n_groups = data.draw(st.integers(1, 3))
    groups: list[list[slice]] = [[] for _ in range(n_groups)]
    for begin, end in pairwise(ends):  # each range in any group, or in none
        g = data.draw(st.integers(-1, n_groups - 1))
        if g >= 0:
            groups[g].append(slice(begin, end))
    top = data.draw(st.sampled_from([1, 3, 200, 300, 10**6, 2**31 - 10]))
    sizes = data.draw(st.lists(st.integers(1, 200), min_size=n_groups, max_size=n_groups))
    rows = data.draw(st.integers(0, 5))
    check(skewed(rows, ends[-1], top, seed), groups, sizes, ties)


@pytest.mark.parametrize("ties", bits.TIES)
def test_select_where_the_sample_misleads(ties: str) -> None:
    counts = np.zeros((1, 100_000), np.int32)
    counts[0, 15::16] = 0  # the sample takes runs of 16 at even distances
    counts[0, 77_777:77_877] = np.arange(100) * 10**6 + 5  # nearly all sampled counts are 0
    for size in (1, 40, 100, 101):
        check(counts, None, [size], ties)
    check(counts + 10**9, None, [7], ties)
    check(np.full((1, 5000), 3, np.int32), None, [1000], ties)


@pytest.mark.parametrize("ties", bits.TIES)
@pytest.mark.parametrize("n", [3, 64, 1000, 40_000])
def test_select_at_the_ends_of_int32(n: int, ties: str) -> None:
    """Counts that the bytes of the kernel, or a cut one above the highest count, cannot hold."""
    rng = np.random.default_rng(n)
    for ends in (
        [INT32_MAX],
        [INT32_MAX - 1, INT32_MAX],
        [-(2**31), INT32_MAX],
        [0, 1, INT32_MAX - 300, INT32_MAX - 1],
        [65_535, 65_536, 65_791],
    ):
        counts = rng.choice(np.array(ends, np.int32), (2, n))
        for size in (1, n // 3 + 1, n, n + 1):
            check(counts, None, [size], ties)


@pytest.mark.parametrize("cut", [1, 255, 65_536, INT32_MAX - 1, INT32_MAX])
def test_given_cuts_at_the_ends_of_int32(cut: int) -> None:
    counts = np.array([[cut, cut - 1, min(cut + 1, INT32_MAX), 0, -(2**31), INT32_MAX]], np.int32)
    found = bits.select(counts, cuts=np.array([[cut]], np.int32))
    members = np.unpackbits(found.bits[0], bitorder="little")[: counts.shape[1]]
    assert members.tolist() == (counts[0] >= cut).tolist()
    assert found.cuts.tolist() == [[cut]]


def test_select_by_given_cuts() -> None:
    counts = skewed(3, 500, 80, seed=1)
    cuts = np.array([[0, 10], [40, 81], [79, 1]], np.int32)
    groups = [[slice(0, 123)], [slice(123, 200), slice(300, 500)]]
    found = bits.select(counts, groups=groups, cuts=cuts)
    bar = np.full((3, 500), np.iinfo(np.int32).max)
    bar[:, :123], bar[:, 123:200] = np.maximum(cuts[:, :1], 1), np.maximum(cuts[:, 1:], 1)
    bar[:, 300:] = bar[:, 123:124]
    expected = counts >= bar
    np.testing.assert_array_equal(found.bits, np.packbits(expected, axis=1, bitorder="little"))
    np.testing.assert_array_equal(found.cuts, np.maximum(cuts, 1))
    assert found.sizes[:, 0].tolist() == expected[:, :123].sum(1).tolist()


@pytest.mark.parametrize(
    ("ties", "size", "cut"), [("inclusive", 5, 2), ("exclusive", 2, 3), ("exact", 3, 2)]
)
def test_a_cut_inside_a_group_of_ties(ties: str, size: int, cut: int) -> None:
    counts = np.array([[2, 9, 2, 0, 2, 1, 3]], np.int32)
    found = bits.select(counts, sizes=3, ties=ties)
    members = np.unpackbits(found.bits[0], bitorder="little").astype(bool)
    assert (members.sum(), found.sizes.tolist(), found.cuts.tolist()) == (size, [[size]], [[cut]])
    assert members[[1, 6]].all()
    assert not members[[3, 5]].any()


@pytest.mark.parametrize("ties", bits.TIES)
@pytest.mark.parametrize("size", [1, 3, 4, 5, 6])
def test_a_count_of_zero_is_never_selected(ties: str, size: int) -> None:
    found = bits.select(np.array([[0, 3, 0, 1, 0, 0]], np.int32), sizes=size, ties=ties)
    assert not found.bits[0, 0] & 0b110101
    nothing = bits.select(np.zeros((1, 20), np.int32), sizes=size, ties=ties)
    assert not nothing.bits.any()
    assert nothing.cuts.tolist() == [[1]]
    assert nothing.sizes.tolist() == [[0]]


@pytest.mark.parametrize("low", [-1, -(2**31)])
def test_negative_counts_are_never_selected(low: int) -> None:
    counts = skewed(1, 300, 50, seed=0)
    counts[0, ::3] = low
    found = bits.select(counts, sizes=20)
    np.testing.assert_array_equal(found.bits, bits.select(np.maximum(counts, 0), sizes=20).bits)
    assert not bits.select(np.full((1, 99), low, np.int32), sizes=5).bits.any()


def test_the_order_of_ties_is_pinned() -> None:
    """A stored set must not change with a version of this package."""
    assert splitmix64(np.array([0, 1, 2**40])).tolist() == [
        16294208416658607535, 10451216379200822465, 2296115805719413641,
    ]  # fmt: skip
    found = bits.select(np.ones((1, 64), np.int32), sizes=7, ties="exact")
    members = np.flatnonzero(np.unpackbits(found.bits[0], bitorder="little"))
    assert members.tolist() == [3, 10, 18, 21, 41, 48, 49]


def test_ties_favour_no_place() -> None:
    found = bits.select(np.ones((1, 100_000), np.int32), sizes=10_000, ties="exact")
    members = np.unpackbits(found.bits[0], bitorder="little")
    per_tenth = members.reshape(10, -1).sum(1, dtype=int)
    assert per_tenth.sum() == 10_000
    assert abs(per_tenth - 1000).max() < 150  # 5 standard deviations


@pytest.mark.parametrize("n_bytes", [0, 1, 8, 63, 64, 65, 4096, 4160, 5000])
def test_intersections_equal_bitwise_counts(n_bytes: int) -> None:
    rng = np.random.default_rng(n_bytes)
    for n, m in ((0, 3), (1, 1), (3, 5), (130, 4), (6, 131)):
        a = rng.integers(0, 256, (n, n_bytes), dtype=np.uint8)
        b = rng.integers(0, 256, (m, n_bytes), dtype=np.uint8)
        for x, y, ours in ((a, b, bits.intersections(a, b)), (a, a, bits.intersections(a))):
            expected = np.bitwise_count(x[:, None] & y[None]).sum(-1)
            np.testing.assert_array_equal(ours, expected)


counts = np.zeros((2, 10), np.int32)
packed = np.zeros((2, 10), np.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bits.select(counts[0], sizes=1), r"counts must be \[rows, components\] int32"),
        (lambda: bits.select(counts.astype(int), sizes=1), r"counts must .* got \[2, 10\] int64"),
        (lambda: bits.select(counts[:, ::2], sizes=1), "counts must .* not C-contiguous"),
        (lambda: bits.select(counts, sizes=0), r"sizes must be 1 numbers of at least 1.* \[0\]"),
        (lambda: bits.select(counts, sizes=[1, 2]), "sizes must be 1 numbers"),
        (lambda: bits.select(counts), "give either sizes or cuts"),
        (
            lambda: bits.select(counts, cuts=np.ones((2, 3), np.int32)),
            r"cuts must be \[2, 1\] int32; got \[2, 3\] int32",
        ),
        (
            lambda: bits.select(counts, cuts=np.ones((2, 1), int)),
            r"cuts must be \[2, 1\] int32; got \[2, 1\] int64",
        ),
        (
            lambda: bits.select(counts, sizes=1, ties="all"),
            "ties must be one of inclusive, .*'all'",
        ),
        (
            lambda: bits.select(counts, sizes=[1, 1], groups=[[slice(0, 6)], [slice(5, 9)]]),
            "groups must be slices within 0:10 that do not overlap, got 5:9 after 6",
        ),
        (lambda: bits.select(counts, sizes=1, groups=[[slice(0, 11)]]), "got 0:11"),
        (lambda: bits.intersections(packed[0]), r"a must be \[sets, bytes\] uint8"),
        (lambda: bits.intersections(packed.astype(int)), "a must .* int64"),
        (lambda: bits.intersections(packed, packed[:, :5].copy()), r"b must be \[sets, 10\]"),
    ],
)
def test_errors_say_what_was_expected(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
