"""act_mul_count_quant on CUDA without a GPU: its header as plain C++, warp by warp."""

import numpy as np
import pytest
import torch
from emulation import act_mul_count, act_mul_count_quant, emulation
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import Case, draw
from quant_cases import (
    FORMATS,
    FP8,
    HALVES,
    QuantCase,
    check,
    edges,
    every_pair,
    quant_cases,
    quantised,
    same_codes,
)

from sparcom.counting import layout
from sparcom.errors import InputError


def calls(striped: bool = False, **options):
    """(act_mul_count_quant, act_mul_count) of the emulation, with counts in order."""

    def quant(gate, up, bins, counts, rows, q, scales, *, signs=None, **more):
        act_mul_count_quant(
            gate, up, bins, counts, rows, q, scales, signs=signs, striped=striped, **options, **more
        )
        for buffer in (counts, signs):
            if striped and buffer is not None:
                buffer.copy_(layout.in_order(buffer))

    def plain(*inputs, **more):
        return act_mul_count(*inputs, seed=options.get("seed", 0), **more)[0]

    return quant, plain


@settings(max_examples=300, deadline=None)
@given(
    case=quant_cases(),
    multiprocessors=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
    striped=st.booleans(),
    wide=st.booleans(),
)
def test_property_any_case(
    case: QuantCase, multiprocessors: int, seed: int, striped: bool, wide: bool
) -> None:
    check(*calls(striped, multiprocessors=multiprocessors, seed=seed, wide=wide), case)


def quantise_rows(h: torch.Tensor, dtype: torch.dtype, *, ue8m0: bool = False, seed: int = 0):
    """(q, scales) of h itself: the kernel on relu of |h| times the sign of h."""
    n, width = h.shape
    q, scales = torch.zeros(n, width, dtype=dtype), torch.zeros(n, width // 128)
    counts, rows = (torch.zeros(s, dtype=torch.int32) for s in ((1, width), (1,)))
    gate, up = h.abs(), torch.ones_like(h).copysign(h)
    bins = torch.zeros(n, dtype=torch.int32)
    act_mul_count_quant(
        gate, up, bins, counts, rows, q, scales, activation="relu", ue8m0=ue8m0, seed=seed
    )
    return q, scales


@pytest.mark.parametrize(("apart", "seed"), [(1, 0), (9, 1), (17, 2)])
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("half", HALVES)
def test_every_quotient(half: torch.dtype, dtype: torch.dtype, apart: int, seed: int) -> None:
    """Every significand under every largest one, with different errors of 1/x; 2^17 apart, fp8 has
    subnormal numbers."""
    h = every_pair(half, apart)
    q, scales = quantise_rows(h, dtype, seed=seed)
    codes, expected = quantised(h.float().numpy(), dtype, False)
    assert np.array_equal(scales.numpy(), expected)
    assert same_codes(q, codes)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("half", HALVES)
def test_powers_of_two_as_scales(half: torch.dtype, dtype: torch.dtype) -> None:
    """Then all quotients are exact, and many lie in the middle of two numbers."""
    h = every_pair(half, 1)
    q, scales = quantise_rows(h, dtype, ue8m0=True)
    codes, expected = quantised(h.float().numpy(), dtype, True)
    assert np.array_equal(scales.numpy(), expected)
    assert same_codes(q, codes)


@pytest.mark.parametrize("ue8m0", [False, True])
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("half", HALVES)
def test_edges(half: torch.dtype, dtype: torch.dtype, ue8m0: bool) -> None:
    h = edges(half)
    q, scales = quantise_rows(h, dtype, ue8m0=ue8m0)
    codes, expected = quantised(h.float().numpy(), dtype, ue8m0)
    assert np.array_equal(scales.numpy(), expected, equal_nan=True)
    assert same_codes(q, codes)


def test_the_last_warp_of_a_row_may_have_threads_without_columns() -> None:
    for width, threads in ((128, 32), (256, 32), (384, 64), (1408, 192)):
        gate = draw(9, width, torch.bfloat16, width)
        case = Case(gate, gate, torch.zeros(9, dtype=torch.int32), 1)
        check(*calls(multiprocessors=1, seed=5), QuantCase(case, FP8))
        counts, rows = (torch.zeros(s, dtype=torch.int32) for s in ((1, width), (1,)))
        q, scales = torch.zeros(9, width, dtype=FP8), torch.zeros(9, width // 128)
        launch = act_mul_count_quant(gate, gate, case.bins, counts, rows, q, scales)
        assert launch["threads_per_row"] == threads


def test_many_rows_of_a_thread() -> None:
    """Runs that several threads share; padding between the groups of three experts."""
    gate, up = (draw(200, 1024, torch.bfloat16, seed) for seed in (0, 1))
    groups = ((0, 50), (-1, 14), (1, 3), (-1, 61), (2, 64), (-1, 8))
    expert = torch.cat([torch.full((n,), e, dtype=torch.int32) for e, n in groups])
    bins = (expert.clamp(min=0) * 2 + (torch.arange(200) % 7 == 0)).to(torch.int32)
    case = Case(gate, up, bins, 6, {"expert": expert})
    for striped in (False, True):
        check(*calls(striped, multiprocessors=1), QuantCase(case, FP8, layout="columns"))
    counts, rows = (torch.zeros(s, dtype=torch.int32) for s in ((6, 1024), (6,)))
    q, scales = torch.zeros(200, 1024, dtype=FP8), torch.zeros(200, 8)
    launch = act_mul_count_quant(gate, up, bins, counts, rows, q, scales, striped=True)
    assert launch["rows_per_thread"] > 16


def test_wrong_memory_is_refused_before_the_launch() -> None:
    gate = draw(2, 256, torch.bfloat16, 0)
    counts, rows = (torch.zeros(s, dtype=torch.int32) for s in ((1, 128), (1,)))
    bins, scales = torch.zeros(2, dtype=torch.int32), torch.zeros(2, 1)
    q = torch.zeros(2, 128, dtype=FP8)

    def call(gate, q=q, scales=scales):
        act_mul_count_quant(gate, None, bins, counts, rows, q, scales)

    with pytest.raises(InputError, match="aligned to 16 bytes to be quantised on CUDA"):
        call(gate[:, 4:132])
    with pytest.raises(InputError, match="q must not share memory with gate"):
        call(gate[:, :128], q=gate.view(FP8).flatten()[:256].view(2, 128))
    with pytest.raises(InputError, match="scales must not share memory with gate"):
        call(gate[:, :128], scales=gate.view(torch.float32)[:, :1])
    assert emulation().launch(0, 128, 1, 1, False)["blocks"] == 0
