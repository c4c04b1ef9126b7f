"""The machine code of act_mul_count_quant, executed: what ptxas made against plain NumPy.

On sm_80 fp8 is made by the kernel's own arithmetic, on sm_90 by an instruction. Without nvcc or
cuobjdump these tests skip.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
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

import sass
from sass_machine import kernel
from sass_machine.machine import Step
from sass_machine.operands import ZERO_REGISTER, Operand
from sparcom import native
from sparcom.counting import layout

pytestmark = pytest.mark.skipif(bool(sass.missing()), reason=sass.missing())
UNIT_ERROR = 2.0**-22  # what the CUDA manual allows the special function unit
both_architectures = pytest.mark.parametrize("architecture", kernel.ARCHITECTURES)


def calls(architecture: str, striped: bool = False, **more: object) -> tuple[Callable, Callable]:
    """(act_mul_count_quant, act_mul_count) by machine code, with counts in order."""
    built = native._cuda.info()["cuda_architectures"].split()
    if architecture.removeprefix("sm_") not in built:
        pytest.skip(f"the CUDA part is built for {', '.join(built)} only")
    machine = {"architecture": architecture, "error": UNIT_ERROR}

    def quant(gate, up, bins, counts, rows, q, scales, *, signs=None, **options):
        kernel.act_mul_count_quant(
            gate, up, bins, counts, rows, q, scales, signs=signs, striped=striped, **options,
            **machine, **more,
        )  # fmt: skip
        for buffer in (counts, signs):
            if striped and buffer is not None:
                buffer.copy_(layout.in_order(buffer))

    def plain(*inputs, **options):
        return kernel.act_mul_count(*inputs, **options, **machine)[0]

    return quant, plain


@both_architectures
@settings(max_examples=8, deadline=None)
@given(case=quant_cases(), multiprocessors=st.integers(1, 3), striped=st.booleans())
def test_property_any_case(
    architecture: str, case: QuantCase, multiprocessors: int, striped: bool
) -> None:
    check(*calls(architecture, striped, multiprocessors=multiprocessors), case)


@pytest.mark.slow
@both_architectures
@settings(max_examples=300, deadline=None)
@given(case=quant_cases(), multiprocessors=st.integers(1, 3), striped=st.booleans())
def test_property_many_cases(
    architecture: str, case: QuantCase, multiprocessors: int, striped: bool
) -> None:
    check(*calls(architecture, striped, multiprocessors=multiprocessors), case)


def quantise_rows(
    architecture: str, h: torch.Tensor, dtype: torch.dtype, ue8m0: bool, activation: str = "relu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """(q, scales) of h itself: f(|h|) times the sign of h; f of large numbers leaves them alone."""
    n, width = h.shape
    q, scales = torch.zeros(n, width, dtype=dtype), torch.zeros(n, width // 128)
    counts, rows = (torch.zeros(s, dtype=torch.int32) for s in ((1, width), (1,)))
    calls(architecture)[0](
        h.abs(), torch.ones_like(h).copysign(h), torch.zeros(n, dtype=torch.int32), counts, rows, q,
        scales, activation=activation, ue8m0=ue8m0,
    )  # fmt: skip
    return q, scales


@both_architectures
@pytest.mark.parametrize("ue8m0", [False, True])
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("half", HALVES)
def test_edges(architecture: str, half: torch.dtype, dtype: torch.dtype, ue8m0: bool) -> None:
    h = edges(half)
    q, scales = quantise_rows(architecture, h, dtype, ue8m0)
    codes, expected = quantised(h.float().numpy(), dtype, ue8m0)
    assert np.array_equal(scales.numpy(), expected, equal_nan=True)
    assert same_codes(q, codes)


@both_architectures
@pytest.mark.parametrize("apart", [1, 9, 17])
@pytest.mark.parametrize("dtype", FORMATS)
def test_every_quotient(architecture: str, dtype: torch.dtype, apart: int) -> None:
    """Every significand of bf16 under every largest one."""
    h = every_pair(torch.bfloat16, apart)
    for ue8m0 in (False, True):
        q, scales = quantise_rows(architecture, h, dtype, ue8m0)
        codes, expected = quantised(h.float().numpy(), dtype, ue8m0)
        assert np.array_equal(scales.numpy(), expected)
        assert same_codes(q, codes)


@both_architectures
@pytest.mark.parametrize("width", [128, 256, 384])
def test_warps_that_part_meet_before_they_shuffle(architecture: str, width: int) -> None:
    """A bin a row: a run ends at every row, and the lanes whose sums are 0 do not add."""
    gate, up = (draw(37, width, torch.bfloat16, seed) for seed in (0, 1))
    gate[:, ::3] = -1
    expert = (torch.arange(37) % 5 - 1).to(torch.int32)
    case = Case(gate, up, (torch.arange(37) % 6).to(torch.int32), 6, {"expert": expert})
    for striped in (False, True):
        check(*calls(architecture, striped), QuantCase(case, FP8))


# --- that a fault would show ----------------------------------------------------------------------


def leaves_out_half_a_group(step: Step) -> Step:
    """The shuffle over 8 lanes gives a lane its own number."""
    if step.name != "SHFL" or step.operands[3] != Operand("I", 8):
        return step
    return replace(step, operands=(*step.operands[:3], Operand("I", 0), step.operands[4]))


def swaps_bytes(step: Step) -> Step:
    if step.name != "F2FP" or "E4M3" not in step.modifiers:
        return step
    to, high, low, base = step.operands
    return replace(step, operands=(to, low, high, base))


def corrects_no_quotient(step: Step) -> Step:
    """The remainder, a fused multiplication with a negated term, is 0."""
    if step.name != "FFMA" or not step.operands[3].negative:
        return step
    return replace(step, name="MOV", operands=(step.operands[0], Operand("R", ZERO_REGISTER)))


@pytest.mark.parametrize("mutation", [leaves_out_half_a_group, swaps_bytes, corrects_no_quotient])
def test_a_wrong_instruction_is_found(
    mutation: Callable[[Step], Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = kernel.steps
    changed = [0]

    def mutated(architecture: str, name: str) -> tuple[Step, ...]:
        new = tuple(mutation(step) for step in code(architecture, name))
        changed[0] += sum(a != b for a, b in zip(new, code(architecture, name), strict=True))
        return new

    h = every_pair(torch.bfloat16, 1).view(-1, 256)  # whole warps, which take the short way
    codes, scales = quantised(h.float().numpy(), FP8, False)
    for wrong in (False, True):
        if wrong:
            monkeypatch.setattr(kernel, "steps", mutated)
        q, found = quantise_rows("sm_90", h, FP8, False, "silu")
        right = same_codes(q, codes) and np.array_equal(found.numpy(), scales)
        assert right != wrong
    assert changed[0]
