"""How exact f is: every bf16 and fp16 input, a dense fp32 grid, gates whose f rounds to 0."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kernel_cases import ACTIVATIONS, units_apart
from torch import Tensor

from sparcom.counting import reference
from sparcom.counting.ops import act_mul_count

HALVES = (torch.bfloat16, torch.float16)
# The largest share of inputs at which f may differ from the correctly rounded one, by one unit: if
# f is a normal number, and if it is subnormal (x / 2, where every second value is a tie).
NORMAL_SHARE, SUBNORMAL_SHARE = 0.0002, 0.3


def all_values(dtype: torch.dtype) -> Tensor:
    """[256, 256]: every value of a 16-bit dtype, both zeros, infinities and NaN."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    return bits.view(dtype).reshape(256, 256)


def apply(activation: str, gate: Tensor, bins: Tensor | None = None, **options) -> Tensor:
    counts = torch.zeros(1, gate.shape[1], dtype=torch.int32)
    rows = torch.zeros(1, dtype=torch.int32)
    bins = torch.full((len(gate),), -1, dtype=torch.int32) if bins is None else bins
    return act_mul_count(gate, None, bins, counts, rows, activation=activation, **options)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_half_is_within_one_unit(activation: str, dtype: torch.dtype) -> None:
    gate = all_values(dtype)
    exact = reference.activate(activation, gate).to(dtype)
    apart = units_apart(apply(activation, gate), exact)
    assert int(apart.max()) <= 1
    normal = exact.abs() >= torch.finfo(dtype).smallest_normal
    assert float((apart[normal] > 0).double().mean()) <= NORMAL_SHARE
    assert float((apart[~normal] > 0).double().mean()) <= SUBNORMAL_SHARE


@pytest.mark.parametrize("dtype", HALVES)
def test_silu_is_torchs_but_for_a_few_inputs(dtype: torch.dtype) -> None:
    gate = all_values(dtype)
    ours, theirs = apply("silu", gate), torch.nn.functional.silu(gate)
    normal = theirs.abs() >= torch.finfo(dtype).smallest_normal
    assert int((ours != theirs)[normal].sum()) <= 20  # of 49,211 (bf16), 46,621 (fp16)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_floats_are_within_four_units(activation: str) -> None:
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (500, 1000), generator=generator).to(torch.int32)
    spread = torch.linspace(-110, 110, 500_000).view(500, 1000)
    for gate in (bits.view(torch.float32), spread, spread / 10, spread / 1000):
        exact = reference.activate(activation, gate).float()
        assert int(units_apart(apply(activation, gate), exact).max()) <= 4


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("threshold", [0.0, 0.1, 1.0, -0.01, -0.16, -0.17, -0.2784, -1.0])
def test_every_half_is_counted_by_the_exact_function(
    activation: str, dtype: torch.dtype, threshold: float
) -> None:
    gate = all_values(dtype)
    counts, rows = torch.zeros(256, 256, dtype=torch.int32), torch.zeros(256, dtype=torch.int32)
    bins = torch.arange(256, dtype=torch.int32)
    act_mul_count(gate, None, bins, counts, rows, activation=activation, threshold=threshold)
    expected = reference.activate(activation, gate) > threshold
    assert torch.equal(counts, expected.int())


# Positive gates whose f rounds to 0: they count, since f > 0. Half of the smallest subnormal is a
# tie and rounds to even; relu2 squares, so many more gates round to 0.
ROUNDED_AWAY = [
    (torch.bfloat16, "silu", 1),
    (torch.bfloat16, "gelu", 1),
    (torch.bfloat16, "gelu_tanh", 1),
    (torch.float16, "silu", 1),
    (torch.float16, "gelu", 1),
    (torch.float16, "gelu_tanh", 1),
    (torch.bfloat16, "relu2", int(torch.tensor(2.0**-67).bfloat16().view(torch.int16))),
    (torch.float16, "relu2", int(torch.tensor(2.0**-12.5).half().view(torch.int16))),
    (torch.float16, "relu", 0),
]


@pytest.mark.parametrize(("dtype", "activation", "how_many"), ROUNDED_AWAY)
def test_gates_that_round_to_zero_still_count(
    dtype: torch.dtype, activation: str, how_many: int
) -> None:
    gate = all_values(dtype)
    positive = gate > 0
    exact = reference.activate(activation, gate).to(dtype)
    assert int((positive & (exact == 0)).sum()) == how_many
    counts, rows = torch.zeros(1, 256, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    bins = torch.zeros(256, dtype=torch.int32)
    act_mul_count(gate, None, bins, counts, rows, activation=activation)
    assert torch.equal(counts[0], positive.sum(0, dtype=torch.int32))


def test_flushing_subnormals_to_zero_does_not_change_counts() -> None:
    gate = all_values(torch.bfloat16)
    assert torch.set_flush_denormal(True)
    try:
        counts, rows = torch.zeros(1, 256, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
        act_mul_count(gate, None, torch.zeros(256, dtype=torch.int32), counts, rows)
    finally:
        torch.set_flush_denormal(False)
    assert torch.equal(counts[0], (gate > 0).sum(0, dtype=torch.int32))


def test_a_table_built_while_subnormals_are_flushed_holds_them() -> None:
    """A table of f is built once in a process: not by what the first thread to call asks for."""
    code = f"""
import sys, torch
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1] / "helpers")!r}]
from test_accuracy import all_values, apply
gate = all_values(torch.bfloat16)
torch.set_flush_denormal(True)
apply("silu", gate)
torch.set_flush_denormal(False)
f = apply("silu", gate)
exact = torch.nn.functional.silu(gate.double()).bfloat16()
tiny = (exact != 0) & (exact.abs() < torch.finfo(torch.bfloat16).smallest_normal)
assert int(tiny.sum()) > 100
assert bool((f[tiny] != 0).all())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
