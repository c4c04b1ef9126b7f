"""act_mul_count on the CPU against its plain-torch twin: every dtype, activation and layout."""

import pytest
import torch
from hypothesis import given, settings
from kernel_cases import ACTIVATIONS, Case, cases, check, draw
from torch import Tensor

from sparcom.counting.ops import DTYPES, act_mul_count
from sparcom.errors import InputError

# Almost empty, one off a vector (4, 8, 16) or a block (8, 16, 32), as wide as a layer.
WIDTHS = (1, 7, 8, 15, 17, 31, 32, 33, 127, 1536, 8193)
WIDEST, WIDEST_APART = 32768, 8192  # of a tile; of one in which gate and up take turns


def runs(*lengths: int) -> Tensor:
    """Bins 0, 1, 2, ... in runs of these lengths; a negative length is not counted."""
    bins = [[i if n > 0 else -1] * abs(n) for i, n in enumerate(lengths)]
    return torch.tensor([b for run in bins for b in run], dtype=torch.int32)


def new_counts(bins: int, width: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(bins, width, dtype=torch.int32), torch.zeros(bins, dtype=torch.int32)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_reference(dtype: torch.dtype, activation: str, gated: bool) -> None:
    bins = runs(5, -3, 1, 7, 1)
    for width in WIDTHS:
        gate = draw(len(bins), width, dtype, width)
        up = draw(len(bins), width, dtype, width + 1) if gated else None
        check(act_mul_count, Case(gate, up, bins, 5, {"activation": activation}))


@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_wider_than_a_tile(dtype: torch.dtype, signs: bool) -> None:
    bins = runs(2, -1, 1)
    both = draw(len(bins), 2 * (WIDEST + 33), dtype, 0)
    check(act_mul_count, Case(*both.chunk(2, dim=1), bins, 3, signs=signs))
    both = both[:, : 2 * (WIDEST_APART + 33)]
    check(act_mul_count, Case(both[:, ::2], both[:, 1::2], bins, 3, signs=signs))


@settings(max_examples=300)
@given(case=cases())
def test_property_any_shape_layout_bins_and_option(case: Case) -> None:
    expert = case.options.get("expert")
    tables = [case.options[name] for name in ("keep", "fill") if name in case.options]
    wrong = bool(((case.bins < -1) | (case.bins >= case.n_bins)).any())
    if expert is not None and tables:
        wrong |= bool(((expert < 0) | (expert >= len(tables[0]))).any())
    if wrong and case.gate.numel():
        with pytest.raises(InputError, match=r"(bins|expert)\[\d+\] must be "):
            check(act_mul_count, case)
    elif not wrong:
        check(act_mul_count, case)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_product_is_counted_before_it_is_ablated(activation: str) -> None:
    gate, up = draw(9, 41, torch.float32, 1), draw(9, 41, torch.float32, 2)
    keep = torch.zeros(1, 41)
    options = {"activation": activation, "signal": "product", "keep": keep}
    out, counts, _ = check(act_mul_count, Case(gate, up, runs(9), 1, options))
    assert int(counts.sum()) > 0
    assert not out.any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_strides_between_rows(dtype: torch.dtype) -> None:
    both = draw(18, 2 * 41, dtype, 0)
    for gate, up in (
        (both[:9, :41], both[:9, 41:]),  # halves of one tensor
        (both[:9, 3:40], both[9:, 5:42]),  # parts of padded rows
        (both[::2, :41], both[1::2, 41:]),  # every other row
        (both[:1, :41].expand(9, -1), both[9:, :41]),  # one row for all
    ):
        check(act_mul_count, Case(gate, up, runs(4, 5), 2))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_signs_of_gate_and_up(dtype: torch.dtype, activation: str) -> None:
    bins = runs(5, -3, 260, 7, 1)
    for width in WIDTHS:
        gate, up = (draw(len(bins), width, dtype, width + i) for i in (0, 1))
        up[::7] = 0.0  # has no sign
        check(act_mul_count, Case(gate, up, bins, 5, {"activation": activation}, signs=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_signs_of_special_values(dtype: torch.dtype) -> None:
    inf, nan = float("inf"), float("nan")
    # Four times the least above 0: half of the least is a tie, which kernels round either way.
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps * 4
    values = torch.tensor([0.0, -0.0, inf, -inf, nan, tiny, -tiny, 1.0, -1.0], dtype=dtype)
    gate, up = values.repeat_interleave(9)[None], values.repeat(9)[None]
    check(act_mul_count, Case(gate, up, runs(1), 1, signs=True))


def test_a_run_longer_than_a_byte_counts() -> None:
    counts, rows = new_counts(2, 40)
    act_mul_count(torch.ones(700, 40), None, runs(600, 100), counts, rows, activation="relu")
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
    counts, seen = new_counts(1, width)
    out = act_mul_count(gate, gate.clone(), torch.zeros(rows, dtype=torch.int32), counts, seen)
    assert out.shape == (rows, width)
    assert seen.tolist() == [rows]


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_any_number_of_threads(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        scattered = torch.arange(400, dtype=torch.int32) * 7 % 5 - 1  # each tile meets each bin
        for bins, width in ((scattered, 96), (scattered, 1000), (runs(3, -1, 2), 20000)):
            gate = draw(len(bins), width, torch.bfloat16, 0)
            check(act_mul_count, Case(gate, gate.clone(), bins, 4))
            check(act_mul_count, Case(gate, -gate, bins, 4, signs=True))
    finally:
        torch.set_num_threads(before)


# 36 MB, stored past the caches where rows are 64-byte aligned: all, every other, or few.
@pytest.mark.parametrize(
    ("dtype", "width"), [(torch.bfloat16, 16384), (torch.float16, 16400), (torch.float32, 8197)]
)
def test_a_large_output_equals_its_halves(dtype: torch.dtype, width: int) -> None:
    gate = draw(1100, width, dtype, 0)
    bins = torch.zeros(1100, dtype=torch.int32)
    counts, rows = new_counts(1, width)
    out = torch.full_like(gate, float("nan"))
    assert act_mul_count(gate, gate, bins, counts, rows, out=out) is out
    for part in (slice(0, 550), slice(550, 1100)):
        again = act_mul_count(gate[part], gate[part], bins[part], *new_counts(1, width))
        assert torch.equal(out[part], again)
    assert torch.equal(counts[0], (gate > 0).sum(0, dtype=torch.int32))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_special_values(activation: str, dtype: torch.dtype) -> None:
    inf = float("inf")
    values = [0.0, -0.0, inf, -inf, float("nan"), 1e30, -1e30, 90.0, -90.0, -103.0, -88.0, 65504.0]
    values += [1e-30, -1e-30, -20.0, 3e38, -3e38]
    gate = torch.tensor([values]).to(dtype)
    for threshold in (0.0, 0.5, -0.1, 1e9, -1e9):
        options = {"activation": activation, "threshold": threshold}
        check(act_mul_count, Case(gate, None, runs(1), 1, options))
        check(act_mul_count, Case(gate, gate.flip(1), runs(1), 1, options))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threshold", [0.0, 0.7, -0.7])
def test_the_computed_product_decides(dtype: torch.dtype, threshold: float) -> None:
    gate, up = draw(40, 100, dtype, 0), draw(40, 100, dtype, 1)
    gate[3, 7] = float("nan")
    counts, rows = new_counts(1, 100)
    out = act_mul_count(gate, up, runs(40), counts, rows, signal="product", threshold=threshold)
    assert torch.equal(counts[0], (out.double() > threshold).sum(0, dtype=torch.int32))


def test_the_default_is_silu_over_zero() -> None:
    gate, up = draw(6, 50, torch.bfloat16, 0), draw(6, 50, torch.bfloat16, 1)
    ours, named = new_counts(1, 50), new_counts(1, 50)
    out = act_mul_count(gate, up, runs(6), *ours)
    options = {"activation": "silu", "threshold": 0.0, "signal": "gate"}
    assert torch.equal(out, act_mul_count(gate, up, runs(6), *named, **options))
    assert torch.equal(ours[0], named[0])
