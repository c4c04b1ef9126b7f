"""The torch twins of the bit kernels, on CPU tensors: the same sets and sizes bit for bit."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparcom import bits_torch
from sparcom.errors import InputError
from sparcom.selection import bits


def assert_same(counts: np.ndarray, **options) -> None:
    native = bits.select(counts, **options)
    ours = bits_torch.select(torch.from_numpy(counts), **options)
    for name in ("bits", "cuts", "sizes"):
        found = getattr(ours, name)
        assert str(found.dtype).removeprefix("torch.") == str(getattr(native, name).dtype)
        np.testing.assert_array_equal(found.numpy(), getattr(native, name))


@given(data=st.data(), ties=st.sampled_from(list(bits.TIES)), seed=st.integers(0, 10**6))
def test_property_select_equals_the_native_one(data: st.DataObject, ties: str, seed: int) -> None:
    lengths = data.draw(st.lists(st.integers(0, 90), min_size=1, max_size=8))
    ends = np.cumsum([0, *lengths]).tolist()
    n_groups = data.draw(st.integers(1, 3))
    groups: list[list[slice]] = [[] for _ in range(n_groups)]
    for begin, end in pairwise(ends):
        turn = data.draw(st.integers(-1, n_groups - 1))
        if turn >= 0:
            groups[turn].append(slice(begin, end))
    top = data.draw(st.sampled_from([1, 3, 200, 65_535, 65_536, 10**6, 2**31 - 10]))
    sizes = data.draw(st.lists(st.integers(1, 200), min_size=n_groups, max_size=n_groups))
    rows = data.draw(st.integers(0, 5))
    random = np.random.default_rng(seed)
    counts = random.binomial(top, random.beta(0.3, 1.5, ends[-1]), (rows, ends[-1]))
    counts = (counts - data.draw(st.sampled_from([0, 0, top // 2]))).astype(np.int32)
    assert_same(counts, sizes=sizes, groups=groups, ties=ties)


@pytest.mark.parametrize("ties", bits.TIES)
def test_select_of_a_whole_model(ties: str) -> None:
    random = np.random.default_rng(0)
    counts = random.binomial(100, random.beta(1, 4, 50_000), (3, 50_000)).astype(np.int32)
    assert_same(counts, sizes=500, ties=ties)


def test_intersections_equal_the_native_ones() -> None:
    random = np.random.default_rng(0)
    for n_bytes in (0, 1, 9, bits_torch.PIECE, bits_torch.PIECE + 3):
        a, b = (random.integers(0, 256, (n, n_bytes), dtype=np.uint8) for n in (5, 3))
        for others in (None, b):
            found = bits_torch.intersections(
                torch.from_numpy(a), None if others is None else torch.from_numpy(others)
            )
            assert found.dtype is torch.int32
            np.testing.assert_array_equal(found.numpy(), bits.intersections(a, others))


counts = torch.zeros(2, 10, dtype=torch.int32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bits_torch.select(counts[0], sizes=1), r"counts must be .* got \[10\] int32"),
        (lambda: bits_torch.select(counts.long(), sizes=1), r"counts must be .* int64"),
        (lambda: bits_torch.select(counts, sizes=[1, 2]), "sizes must be 1 numbers"),
        (lambda: bits_torch.select(counts, sizes=1, ties="all"), "ties must be one of inclusive"),
        (lambda: bits_torch.select(counts, sizes=1, groups=[[slice(0, 11)]]), "got 0:11"),
        (lambda: bits_torch.intersections(counts), r"a must be \[sets, 10\] uint8"),
    ],
)
def test_errors_say_what_was_expected(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
