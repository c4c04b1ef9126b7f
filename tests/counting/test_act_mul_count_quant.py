"""act_mul_count_quant on CPU: plain NumPy, torch's and vLLM's own definitions; what torch sees."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from kernel_cases import draw
from quant_cases import (
    FORMATS,
    FP8,
    HALVES,
    QuantCase,
    check,
    edges,
    every_pair,
    fp8_codes,
    quant_cases,
    quantised,
    same_codes,
)

from sparcom.counting import reference
from sparcom.counting.ops import act_mul_count
from sparcom.counting.quant_ops import act_mul_count_quant
from sparcom.errors import InputError

OP = torch.ops.sparcom.act_mul_count_quant.default
INF = float("inf")


def quant(gate, up, bins, counts, rows, q, scales, **options):
    act_mul_count_quant(gate, up, bins, counts, rows, q=q, scales=scales, **options)


@settings(max_examples=200, deadline=None)
@given(case=quant_cases(padding_in_tables=False))
def test_property_any_case(case: QuantCase) -> None:
    bins = case.plain.bins.clamp(-1, case.plain.n_bins - 1)  # the CPU reports others
    check(quant, act_mul_count, replace(case, plain=replace(case.plain, bins=bins)))


@pytest.mark.parametrize("ue8m0", [False, True])
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("half", HALVES)
def test_the_reference_against_the_definition(
    half: torch.dtype, dtype: torch.dtype, ue8m0: bool
) -> None:
    for h in (edges(half), every_pair(half, 1), every_pair(half, 17)):
        q, scales = reference.quantise(h, dtype, ue8m0=ue8m0)
        codes, expected = quantised(h.float().numpy(), dtype, ue8m0)
        assert np.array_equal(scales.numpy(), expected, equal_nan=True)
        assert same_codes(q, codes)


def test_the_definition_of_fp8_against_torchs() -> None:
    """Every number of bf16 up to 448, and the middles between fp8's with what lies beside them."""
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    x = x.float()[x.isnan() | (x.abs() <= 448)]
    middles = torch.arange(0, 464, 2.0**-10)
    x = torch.cat([x, middles, middles.nextafter(torch.tensor(INF)), -middles.nextafter(-x[:1])])
    x = x.clamp(-448, 448)
    assert same_codes(x.to(FP8), fp8_codes(x.numpy()))


@pytest.mark.parametrize("ue8m0", [False, True])
def test_vllms_own_definition(ue8m0: bool) -> None:
    """The group quantisation that vLLM runs behind SiluAndMul, in its plain torch, bit for bit."""
    gate, up, bins, counts, rows = inputs(6, 1024)
    h = act_mul_count(gate, up, bins, counts, rows)
    expected, expected_scales = vllm_group_quantisation(ue8m0)(h)
    q, scales = act_mul_count_quant(gate, up, bins, counts, rows, ue8m0=ue8m0)
    assert torch.equal(q.view(torch.uint8), expected.view(torch.uint8))
    assert torch.equal(scales, expected_scales)


def vllm_group_quantisation(ue8m0: bool):
    """vLLM's `QuantFP8` in plain torch, groups of 128."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from vllm.model_executor.layers.quantization.input_quant_fp8 import QuantFP8

    quantise = QuantFP8.__new__(QuantFP8)  # building it asks for an engine's config
    torch.nn.Module.__init__(quantise)
    quantise.group_size, quantise.use_ue8m0, quantise.column_major_scales = 128, ue8m0, False
    return quantise._quantize_group_native


@pytest.mark.parametrize("dtype", FORMATS)
def test_what_is_read_back_is_near(dtype: torch.dtype) -> None:
    """q times its scale is within half a step of h: h / 16 in fp8, the largest / 254 in int8."""
    gate, up = (draw(32, 512, torch.bfloat16, seed) for seed in (0, 1))
    counts, rows = (torch.zeros(s, dtype=torch.int32) for s in ((1, 512), (1,)))
    bins = torch.zeros(32, dtype=torch.int32)
    h = act_mul_count(gate, up, bins, counts, rows).float()
    q, scales = act_mul_count_quant(gate, up, bins, counts, rows, dtype=dtype)
    back = q.float() * scales.repeat_interleave(128, 1)
    largest = h.abs().unflatten(1, (4, 128)).amax(2).repeat_interleave(128, 1)
    step = largest / 254 if dtype is torch.int8 else h.abs() / 16 + largest / 448 * 2.0**-10
    assert bool(((back - h).abs() <= 1.001 * step).all())
    assert counts.sum() == 2 * (gate > 0).sum()


def inputs(rows: int = 6, width: int = 256) -> list[torch.Tensor]:
    """gate, up, bins, counts, rows"""
    torch.manual_seed(0)
    both = torch.randn(rows, 2 * width).bfloat16()
    bins = torch.tensor([0, 0, 1, -1, 1, 1], dtype=torch.int32)[:rows]
    counts = torch.zeros(2, width, dtype=torch.int32)
    return [both[:, :width], both[:, width:], bins, counts, torch.zeros(2, dtype=torch.int32)]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("grouped", [False, True])
def test_opcheck(dtype: torch.dtype, grouped: bool) -> None:
    expert = torch.tensor([0, 0, -1, 1, 1, -1], dtype=torch.int32) if grouped else None
    q, scales = torch.zeros(6, 256, dtype=dtype), torch.zeros(2, 6).T
    checks = ["test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic"]
    if dtype is torch.int8:  # torch cannot multiply fp8, which its check of the schema does
        checks.append("test_schema")
    silu = ("silu", 0.0, "gate", None, None, expert, None)
    torch.library.opcheck(OP, (*inputs(), *silu, q, scales), test_utils=checks)
    keep = torch.ones(2, 256).bfloat16()
    ablating = ("gelu", 0.1, "product", keep, None, expert, None)
    torch.library.opcheck(OP, (*inputs(), *ablating, q, scales, True), test_utils=checks)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_code_counts_each_call(backend: str) -> None:
    def layer(gate, up, bins, counts, rows):
        q, scales = act_mul_count_quant(gate + 0, up, bins, counts, rows)
        return q.float().unflatten(1, (-1, 128)) * scales[..., None]

    torch._dynamo.reset()
    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    plain, ours = inputs(), inputs()
    for _ in range(2):
        assert torch.equal(compiled(*ours), layer(*plain))
    assert torch.equal(ours[3], plain[3])
    assert ours[4].tolist() == [4, 6]


def changed(**more):
    names = ("gate", "up", "bins", "counts", "rows")
    return dict(zip(names, inputs(), strict=True)) | more


def halves(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, dtype=torch.bfloat16)


def ints(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, dtype=torch.int32)


ERRORS = {
    "float32": (
        {"gate": torch.zeros(6, 256), "up": None},
        r"gate must be \[rows, a multiple of 128\] bfloat16 or float16; got \[6, 256\] float32",
    ),
    "a part of a group": (
        {"gate": halves(6, 192), "up": None, "counts": ints(2, 192)},
        r"gate must be \[rows, a multiple of 128\]",
    ),
    "no columns": (
        {"gate": halves(6, 0), "up": None, "counts": ints(2, 0)},
        r"gate must be \[rows, a multiple of 128\]",
    ),
    "q of another dtype": ({"dtype": torch.float8_e5m2}, r"q must be \[6, 256\] float8_e4m3fn or"),
    "q of another shape": (
        {"q": torch.zeros(6, 128, dtype=torch.int8)},
        r"q must be \[6, 256\] int8, contiguous, on cpu; got \[6, 128\] int8",
    ),
    "scales of another shape": (
        {"scales": torch.zeros(6, 1)},
        r"scales must be \[6, 2\] float32 on cpu, no two of them in one place; got \[6, 1\]",
    ),
    "scales in one place": ({"scales": torch.zeros(6, 1).expand(6, 2)}, "no two of them in one"),
    "overlapping scales": (
        {"scales": torch.zeros(9).as_strided((6, 2), (1, 3))},
        "no two of them in one place",
    ),
    "expert of another length": (
        {"expert": ints(5)},
        r"act_mul_count_quant: expert must be \[6\] int32, contiguous, on cpu; got \[5\] int32",
    ),
    "an unknown signal": ({"signal": "both"}, "act_mul_count_quant: signal must be one of gate"),
    "a wrong bin": (
        {"bins": torch.tensor([0, 0, 2, 0, 0, 0], dtype=torch.int32)},
        r"bins\[2\] must be in -1..1, got 2",
    ),
    "striped counts on CPU": ({"striped": True}, "striped counts are for CUDA"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_is_one_clear_line(name: str) -> None:
    given, message = ERRORS[name]
    arguments = changed(**given)
    with pytest.raises(InputError, match=message):
        act_mul_count_quant(**arguments)
    assert not arguments["counts"].any()
