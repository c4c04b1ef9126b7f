"""act_mul_count against its plain-torch twin: every dtype, activation and layout; what it counts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numerics import units_apart
from torch import Tensor

from sparcom.counting import reference
from sparcom.counting.ops import ACTIVATIONS, DTYPES, act_mul_count

DTYPE_LIST = list(DTYPES)
# One off a vector's width (8, 16, 32), off a block, over the widest tile (8192), and nearly nothing.
WIDTHS = (1, 7, 8, 15, 31, 32, 33, 64, 127, 333, 1536, 8193)


def close(a: Tensor, b: Tensor, up: Tensor | None = None) -> None:
    """f is within 1 unit (fp32: 4); a product of it within as many units of the product, and 1."""
    limit = (4 if a.dtype is torch.float32 else 1) * (1 if up is None else 2) + (up is not None)
    assert int(units_apart(a, b).max()) <= limit


def new_counts(bins: int, width: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(bins, width, dtype=torch.int32), torch.zeros(bins, dtype=torch.int32)


def check(gate: Tensor, up: Tensor | None, bins: Tensor, n_bins: int, **options) -> Tensor:
    """Run kernel and reference; counts and rows equal, out close. Returns out."""
    ours, plain = new_counts(n_bins, gate.shape[1]), new_counts(n_bins, gate.shape[1])
    out = act_mul_count(gate, up, bins, *ours, **options)
    expected = reference.act_mul_count(gate, up, bins, *plain, **options)
    assert torch.equal(ours[0], plain[0])
    assert torch.equal(ours[1], plain[1])
    assert out.shape == gate.shape
    assert out.is_contiguous()
    if out.numel():
        close(out, expected, up)
    return out


def draw(rows: int, width: int, dtype: torch.dtype, seed: int = 0, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, width, generator=generator) * scale).to(dtype)


def runs(*lengths: int) -> Tensor:
    """Bins 0, 1, 2, ... in runs of these lengths; a negative length is not counted."""
    bins = [[i if n > 0 else -1] * abs(n) for i, n in enumerate(lengths)]
    return torch.tensor([b for run in bins for b in run], dtype=torch.int32)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPE_LIST)
def test_equals_the_reference(dtype: torch.dtype, activation: str, gated: bool) -> None:
    bins = runs(5, -3, 1, 7, 1)
    for width in WIDTHS:
        gate = draw(len(bins), width, dtype, seed=width)
        up = draw(len(bins), width, dtype, seed=width + 1) if gated else None
        check(gate, up, bins, 5, activation=activation)


@pytest.mark.parametrize("dtype", DTYPE_LIST)
def test_halves_of_one_tensor_and_padded_rows(dtype: torch.dtype) -> None:
    both = draw(9, 2 * 41, dtype)
    check(both[:, :41], both[:, 41:], runs(4, 5), 2)
    padded = draw(9, 64, dtype)
    check(padded[:, 3:44], padded[:, 5:46], runs(9), 1)
    check(draw(1, 41, dtype).expand(9, -1), None, runs(9), 1)
    check(both[::2, :41], both[:5, 41:], runs(5), 1)


def test_a_run_longer_than_a_byte_counts() -> None:
    gate = torch.ones(700, 40)
    counts, rows = new_counts(2, 40)
    act_mul_count(gate, None, runs(600, 100), counts, rows, activation="relu")
    assert counts.tolist() == [[600] * 40, [100] * 40]
    assert rows.tolist() == [600, 100]


def test_counts_and_rows_are_added_to() -> None:
    counts, rows = torch.full((1, 3), 5, dtype=torch.int32), torch.tensor([7], dtype=torch.int32)
    act_mul_count(torch.tensor([[1.0, -1.0, 2.0]]), None, runs(1), counts, rows)
    assert counts.tolist() == [[6, 5, 6]]
    assert rows.tolist() == [8]


@pytest.mark.parametrize(("rows", "width"), [(0, 8), (3, 0), (0, 0)])
def test_nothing_to_do(rows: int, width: int) -> None:
    gate = torch.empty(rows, width)
    bins = torch.zeros(rows, dtype=torch.int32)
    counts, seen = new_counts(1, width)
    assert act_mul_count(gate, gate.clone(), bins, counts, seen).shape == (rows, width)
    assert seen.tolist() == [rows]


def test_an_empty_row_space_without_bins() -> None:
    gate = draw(4, 9, torch.bfloat16)
    check(gate, gate, runs(-4), 0)


@pytest.mark.parametrize("dtype", DTYPE_LIST)
def test_special_values(dtype: torch.dtype) -> None:
    values = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e30, -1e30, 90.0, -90.0]
    values += [-103.0, -88.0, 1e-30, -1e-30, 65504.0, -20.0]
    gate = torch.tensor([values], dtype=torch.float32).to(dtype)
    for activation in ACTIVATIONS:
        for threshold in (0.0, 0.5, -0.1):
            check(gate, None, runs(1), 1, activation=activation, threshold=threshold)
        check(gate, torch.ones_like(gate), runs(1), 1, activation=activation)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_any_number_of_threads(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        bins = torch.arange(400, dtype=torch.int32) * 7 % 5 - 1  # each tile meets each bin
        for width in (96, 1000, 20000):
            gate = draw(400, width, torch.bfloat16)
            check(gate, gate.clone(), bins, 4)
    finally:
        torch.set_num_threads(before)


def test_an_output_of_its_own_is_written_past_the_caches() -> None:
    gate = draw(1100, 16384, torch.bfloat16)  # 36 MB: streamed
    bins = torch.zeros(1100, dtype=torch.int32)
    counts, rows = new_counts(1, 16384)
    out = torch.full_like(gate, float("nan"))
    assert act_mul_count(gate, gate, bins, counts, rows, out=out) is out
    again = act_mul_count(gate[:550], gate[:550], bins[:550], *new_counts(1, 16384))
    assert torch.equal(out[:550], again)
    assert torch.equal(counts[0], (gate > 0).sum(0, dtype=torch.int32))


@pytest.mark.parametrize("dtype", DTYPE_LIST)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_thresholds_decide_by_the_exact_function(activation: str, dtype: torch.dtype) -> None:
    gate = draw(64, 333, dtype, scale=1.5)
    for threshold in (0.3, -0.1, -0.17, -0.5, 2.0, 1e-4, -1e-6, -1e9, 1e9):
        check(gate, None, runs(60, -4), 1, activation=activation, threshold=threshold)


@pytest.mark.parametrize("dtype", DTYPE_LIST)
@pytest.mark.parametrize("threshold", [0.0, 0.7, -0.7])
def test_product_decides_by_what_is_computed(dtype: torch.dtype, threshold: float) -> None:
    gate, up = draw(40, 100, dtype), draw(40, 100, dtype, seed=1)
    gate[3, 7] = float("nan")
    counts, rows = new_counts(1, 100)
    out = act_mul_count(gate, up, runs(40), counts, rows, signal="product", threshold=threshold)
    assert torch.equal(counts[0], (out.double() > threshold).sum(0, dtype=torch.int32))


@pytest.mark.parametrize("dtype", DTYPE_LIST)
@pytest.mark.parametrize("width", [8, 100])
@pytest.mark.parametrize("which", ["keep", "fill", "both", "experts"])
def test_silencing(dtype: torch.dtype, width: int, which: str) -> None:
    gate, up, bins = draw(9, width, dtype), draw(9, width, dtype, seed=1), runs(3, -2, 4)
    n = 3 if which == "experts" else 1
    keep = (draw(n, width, dtype, seed=2) > 0).to(dtype)
    fill = draw(n, width, dtype, seed=3) * (1 - keep)
    expert = torch.tensor([0, 2, 1, 1, 0, 2, 2, 0, 1], dtype=torch.int32) if n > 1 else None
    keep, fill = (keep, None) if which == "keep" else (keep, fill)
    keep = None if which == "fill" else keep
    plain = check(gate, up, bins, 3)
    ours = new_counts(3, width)
    out = act_mul_count(gate, up, bins, *ours, keep=keep, fill=fill, expert=expert)
    row = torch.zeros(9, dtype=torch.long) if expert is None else expert.long()
    expected = plain if keep is None else plain * keep[row]
    assert torch.equal(out, expected if fill is None else expected + fill[row])
    without = new_counts(3, width)
    act_mul_count(gate, up, bins, *without)
    assert torch.equal(ours[0], without[0])  # silencing changes what comes out, not what is counted


@settings(max_examples=150)
@given(
    data=st.data(),
    rows=st.integers(0, 40),
    width=st.integers(0, 100),
    dtype=st.sampled_from(DTYPE_LIST),
    activation=st.sampled_from(list(ACTIVATIONS)),
    gated=st.booleans(),
    threshold=st.sampled_from([0.0, 0.0, 0.25, -0.05, -2.0]),
)
def test_property_any_shape_layout_and_bins(
    data: st.DataObject, rows: int, width: int, dtype, activation, gated, threshold
) -> None:
    n_bins = data.draw(st.integers(0, 4))
    bins = data.draw(st.lists(st.integers(-1, n_bins - 1), min_size=rows, max_size=rows))
    room = data.draw(st.integers(0, 9))
    start = data.draw(st.integers(0, room))
    seed = data.draw(st.integers(0, 10**6))
    gate = draw(rows, width + room, dtype, seed)[:, start : start + width]
    up = draw(rows, width + room, dtype, seed + 1)[:, :width] if gated else None
    bins = torch.tensor(bins, dtype=torch.int32)
    check(gate, up, bins, n_bins, activation=activation, threshold=threshold)
