"""The NEON kernels, cross-compiled and run in qemu: the properties of every other set."""

import aarch64
import pytest
import torch
from aarch64 import act_mul_count
from hypothesis import given, settings
from kernel_cases import ACTIVATIONS, Case, cases, check, check_activation

from sparcom.counting.ops import DTYPES
from sparcom.errors import InputError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(aarch64.missing()), reason=aarch64.missing()),
]


@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_property_any_case(case: Case) -> None:
    try:
        check(act_mul_count, case)
    except InputError as error:
        assert "must be in" in str(error)  # noqa: PT017 - an unknown bin or expert
        expert = case.options.get("expert")
        wrong = ((case.bins < -1) | (case.bins >= case.n_bins)).any()
        assert wrong or ((expert < 0) | (expert >= 1)).any()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_half(dtype: torch.dtype, activation: str) -> None:
    gate = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)[None]
    bins = torch.zeros(1, dtype=torch.int32)
    counts, rows = (torch.zeros(s, dtype=torch.int32) for s in ((1, 2**16), (1,)))
    out = act_mul_count(gate, None, bins, counts, rows, activation=activation)
    check_activation(out, gate, activation)
    assert torch.equal(counts[0].bool(), gate[0] > 0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_floats_near_and_far(activation: str) -> None:
    generator = torch.Generator().manual_seed(0)
    anywhere = torch.randint(-(2**31), 2**31, (2**17,), generator=generator).to(torch.int32)
    gate = torch.cat([anywhere.view(torch.float32), torch.linspace(-110, 20, 2**17)])
    case = Case(gate[None], None, torch.zeros(1, dtype=torch.int32), 1, {"activation": activation})
    check(act_mul_count, case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ["neon", "portable"])
def test_runs_of_rows_and_odd_widths(isa: str, dtype: torch.dtype) -> None:
    def call(*inputs, **options) -> torch.Tensor:
        return act_mul_count(*inputs, isa=isa, **options)

    bins = torch.tensor([0] * 300 + [-1, 1, 2, 2], dtype=torch.int32)
    for width in (1, 7, 9, 33):
        generator = torch.Generator().manual_seed(width)
        both = torch.randn(len(bins), 2 * width + 3, generator=generator).to(dtype)
        check(call, Case(both[:, :width], both[:, width : 2 * width], bins, 3))
