"""The machine code of the CUDA kernel, executed: what ptxas made against plain NumPy.

The kernel's cases, adversarial values, bins and shapes run on sm_80 and sm_90 code, each access
checked for range, permission and alignment. Without nvcc or cuobjdump these tests skip.
"""

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import ACTIVATIONS, Case, cases, check, check_activation

import sass
from sass_machine import kernel
from sass_machine.machine import Step
from sass_machine.memory import AccessError
from sass_machine.operands import Operand
from sparcom import native

pytestmark = pytest.mark.skipif(bool(sass.missing()), reason=sass.missing())
UNIT_ERROR = 2.0**-22  # what the CUDA manual allows the special function unit


def require(architecture: str) -> str:
    """Skip if the CUDA part is built without an architecture."""
    built = native._cuda.info()["cuda_architectures"].split()
    if architecture.removeprefix("sm_") not in built:
        pytest.skip(f"the CUDA part is built for {', '.join(built)} only")
    return architecture


both_architectures = pytest.mark.parametrize("architecture", kernel.ARCHITECTURES)


# --- a plain NumPy reference ----------------------------------------------------------------------

# dtype: digits of the significand, exponent of the smallest step, bits, largest finite number
FORMATS = {
    torch.bfloat16: (8, -133, np.int16, (2 - 2.0**-7) * 2.0**127),
    torch.float16: (11, -24, np.int16, 65504.0),
    torch.float32: (24, -149, np.int32, float(np.finfo(np.float32).max)),
}


def rounded(x: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """float64 on the grid of a dtype, to nearest even."""
    digits, smallest, _, largest = FORMATS[dtype]
    finite = np.where(np.isfinite(x), x, 0)
    step = np.maximum(np.frexp(finite)[1] - digits, smallest)
    near = np.ldexp(np.rint(np.ldexp(finite, -step)), step)
    near = np.where(np.abs(near) > largest, np.copysign(np.inf, near), near)
    return np.where(np.isfinite(x), near, x)


def tensor(x: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Numbers of the dtype's grid as a tensor."""
    return torch.from_numpy(np.ascontiguousarray(x)).to(dtype)


def silu(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return x / (1 + np.exp(-x))


def in_order(buffer: np.ndarray) -> np.ndarray:
    """A striped row [..., width], read by the definition: group by group of each block."""
    out = buffer.copy()
    width = buffer.shape[-1]
    for block in range(0, width, 256):
        lanes = min(256, width - block) // 8
        for lane in range(lanes):
            for i in range(8):
                out[..., block + 8 * lane + i] = buffer[..., block + lanes * i + lane]
    return out


def expected_counts(positive: np.ndarray, bins: np.ndarray, n_bins: int) -> np.ndarray:
    """[n_bins, width]: how often each column is positive in the rows of each bin."""
    return np.stack([positive[bins == b].sum(0) for b in range(n_bins)]) if n_bins else (
        np.zeros((0, positive.shape[1]), int))  # fmt: skip


def adversarial(rows: int, width: int, dtype: torch.dtype, seed: int) -> np.ndarray:
    """[rows, width] float64 on the dtype's grid: half of them zeros, infinities, NaN and edges."""
    digits, smallest, _, largest = FORMATS[dtype]
    tiny, normal = 2.0**smallest, 2.0 ** (smallest + digits - 1)
    edges = [0.0, tiny, 2 * tiny, normal - tiny, normal, 1.0, 1.2784645, 88.7, 104.0, largest]
    values = np.array([*edges, *(-e for e in edges), np.inf, -np.inf, np.nan, -np.nan])
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, width)) * 3
    x = np.where(random.random((rows, width)) < 0.5, random.choice(values, (rows, width)), x)
    return rounded(x, dtype)


def near(out: np.ndarray, gate: np.ndarray, up: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """Where out is round(f' * up) for an f' within 1 unit of f (4 of fp32)."""
    f = rounded(silu(gate), dtype)
    digits, smallest, _, _ = FORMATS[dtype]
    unit = np.ldexp(1.0, np.maximum(np.frexp(np.where(np.isfinite(f), f, 1))[1] - digits, smallest))
    off = 4 if dtype is torch.float32 else 1
    with np.errstate(invalid="ignore", over="ignore"):
        ends = np.stack([rounded((f + k * unit) * up, dtype) for k in range(-off, off + 1)])
    unknown = np.isnan(ends)  # an f' of 0 times infinity is none
    low, high = np.where(unknown, np.inf, ends).min(0), np.where(unknown, -np.inf, ends).max(0)
    return np.where(np.isnan(out), unknown.any(0), (low <= out) & (out <= high))


BINS = {
    "runs": lambda n, bins, random: np.arange(n) * bins // n,
    "not counted between": lambda n, bins, random: np.where(np.arange(n) % 7 == 3, -1, 1),
    "a bin a row": lambda n, bins, random: random.permutation(n) % bins,
    "edges": lambda n, bins, random: random.choice(
        [0, bins - 1, bins, -1, -2, 2**31 - 1, -(2**31)], n
    ),
}


def compare(call: Callable, rows: int, width: int, dtype: torch.dtype, kind: str, *,
            signs: bool = False, striped: bool = True) -> None:  # fmt: skip
    """Run the machine code on adversarial numbers and compare with NumPy."""
    n_bins, seed = 5, rows + width
    gate, up = (adversarial(rows, width, dtype, seed + k) for k in range(2))
    bins = BINS[kind](rows, n_bins, np.random.default_rng(seed)).astype(np.int32)
    counts, seen = (torch.zeros(s, dtype=torch.int32) for s in ((n_bins, width), (n_bins,)))
    found = torch.zeros(2, n_bins, width, dtype=torch.int32) if signs else None
    out, _ = call(
        tensor(gate, dtype), tensor(up, dtype), torch.from_numpy(bins), counts, seen, signs=found,
        striped=striped,
    )  # fmt: skip
    read = in_order if striped else np.copy
    assert np.array_equal(read(counts.numpy()), expected_counts(gate > 0, bins, n_bins))
    assert seen.tolist() == [int((bins == b).sum()) for b in range(n_bins)]
    assert near(out.double().numpy(), gate, up, dtype).all()
    if found is not None:
        for k, positive in enumerate((up > 0, (gate > 0) & (up > 0))):
            assert np.array_equal(read(found[k].numpy()), expected_counts(positive, bins, n_bins))


def machine(architecture: str, **more: object) -> Callable:
    return functools.partial(
        kernel.act_mul_count, architecture=require(architecture), error=UNIT_ERROR, **more
    )


# --- adversarial cases ----------------------------------------------------------------------------


@both_architectures
@pytest.mark.parametrize("width", [1, 3, 17, 19, 33, 65, 97, 131])
def test_one_row_of_any_width(architecture: str, width: int) -> None:
    """Its threads divide by the width, with a reciprocal of the special function unit."""
    compare(machine(architecture), 1, width, torch.float32, next(iter(BINS)))


@both_architectures
@pytest.mark.parametrize("dtype", list(FORMATS))
@pytest.mark.parametrize("kind", list(BINS))
def test_counts_of_adversarial_numbers(architecture: str, dtype: torch.dtype, kind: str) -> None:
    compare(machine(architecture), 23, 264, dtype, kind)
    compare(machine(architecture, multiprocessors=3), 23, 264, dtype, kind, signs=True)


@both_architectures
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (9, 13), (5, 257), (0, 16), (3, 0), (40, 8)])
def test_odd_and_empty_shapes(architecture: str, rows: int, width: int) -> None:
    for dtype in FORMATS:
        compare(machine(architecture), rows, width, dtype, "edges")
        compare(machine(architecture), rows, width, dtype, "edges", signs=True, striped=False)


@pytest.mark.slow
@both_architectures
def test_runs_longer_than_a_word_of_signs(architecture: str) -> None:
    """A thread with 1,100 rows of one bin: three counts of 10 bits do not hold them."""
    compare(machine(architecture), 1100, 8 * 897, torch.bfloat16, "runs", signs=True)


def kernel_call(architecture: str, striped: bool, **more: object) -> Callable:
    """As `ops.act_mul_count`: counts and signs come back in order."""

    def call(gate, up, bins, counts, rows, *, signs=None, out=None, **options):
        machine(architecture, striped=striped, **more)(
            gate, up, bins, counts, rows, signs=signs, out=out, **options
        )
        for buffer in (counts, signs):
            if striped and buffer is not None:
                buffer.copy_(torch.from_numpy(in_order(buffer.numpy())))
        return out

    return call


@both_architectures
@settings(max_examples=8, deadline=None)
@given(case=cases(), multiprocessors=st.integers(1, 3), striped=st.booleans())
def test_property_any_case(
    architecture: str, case: Case, multiprocessors: int, striped: bool
) -> None:
    check(kernel_call(architecture, striped, multiprocessors=multiprocessors), case)


@pytest.mark.slow
@both_architectures
@settings(max_examples=1000, deadline=None)
@given(case=cases(), multiprocessors=st.integers(1, 3), striped=st.booleans())
def test_property_many_cases(
    architecture: str, case: Case, multiprocessors: int, striped: bool
) -> None:
    check(kernel_call(architecture, striped, multiprocessors=multiprocessors), case)


@both_architectures
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "activation",
    [pytest.param(a, marks=[] if a == "silu" else pytest.mark.slow) for a in ACTIVATIONS],
)
def test_every_half(architecture: str, dtype: torch.dtype, activation: str) -> None:
    gate = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)[None]
    counts, rows = (torch.zeros(s, dtype=torch.int32) for s in ((1, 2**16), (1,)))
    bins = torch.zeros(1, dtype=torch.int32)
    out, _ = machine(architecture)(gate, None, bins, counts, rows, activation=activation)
    check_activation(out, gate, activation)
    assert torch.equal(counts[0].bool(), gate[0] > 0)


# --- that a fault would show ----------------------------------------------------------------------


def counts_subnormals_no_more(step: Step) -> Step:
    """x >= the smallest number becomes x > it."""
    if step.name != "FSETP":
        return step
    return replace(step, modifiers=tuple("GT" if m == "GE" else m for m in step.modifiers))


def swaps_halves(step: Step) -> Step:
    if step.name != "F2FP":
        return step
    to, high, low = step.operands
    return replace(step, operands=(to, low, high))


def adds_one_word_further(step: Step) -> Step:
    if step.name not in ("RED", "REDG"):
        return step
    place, source = step.operands
    return replace(step, operands=(replace(place, offset=place.offset + 4), source))


def reads_16_bytes_further(step: Step) -> Step:
    if step.name != "LDG" or "128" not in step.modifiers:
        return step
    to, place = step.operands
    return replace(step, operands=(to, replace(place, offset=place.offset + 16)))


def never_adds(step: Step) -> Step:
    if step.name not in ("RED", "REDG"):
        return step
    return replace(step, guard=Operand("P", 7, inverted=True))


def does_not_wait_for_earlier_kernels(step: Step) -> Step:
    return replace(step, name="NOP") if step.name == "ACQBULK" else step


def lets_the_next_kernel_start_first(step: Step) -> Step:
    return replace(step, name="PREEXIT") if step.name == "ACQBULK" else step


@pytest.mark.parametrize(
    ("architecture", "mutation"),
    [("sm_80", counts_subnormals_no_more), ("sm_80", swaps_halves),
     ("sm_80", adds_one_word_further), ("sm_80", reads_16_bytes_further), ("sm_80", never_adds),
     ("sm_90", does_not_wait_for_earlier_kernels), ("sm_90", lets_the_next_kernel_start_first)],
)  # fmt: skip
def test_a_wrong_instruction_is_found(
    architecture: str, mutation: Callable[[Step], Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = kernel.steps
    changed = [0]

    def mutated(architecture: str, name: str) -> tuple[Step, ...]:
        new = tuple(mutation(step) for step in code(architecture, name))
        changed[0] += sum(a != b for a, b in zip(new, code(architecture, name), strict=True))
        return new

    monkeypatch.setattr(kernel, "steps", mutated)
    with pytest.raises((AssertionError, AccessError)):
        compare(machine(architecture), 23, 264, torch.bfloat16, "runs")
    assert changed[0]


# --- requests -------------------------------------------------------------------------------------

WIDTHS = (11008, 1536, 1408, 1376, 264, 256)


@both_architectures
@pytest.mark.parametrize("width", WIDTHS)
def test_additions_of_a_warp_cover_neighbouring_words(architecture: str, width: int) -> None:
    require(architecture)
    assert kernel.red_sectors_per_warp_run(architecture, width) <= 64
    lanes, rows = width, 8  # of 8 rows with a lane for 8 columns
    alone = kernel.red_sectors_per_warp_run(architecture, width, striped=False)
    assert alone == pytest.approx((8 * lanes + rows) / -(-lanes // 32))  # each lane its own sectors


@both_architectures
def test_whole_blocks_take_one_sector_for_8_counts(architecture: str) -> None:
    """32 for the counts of each warp, and one for the rows of each row's first."""
    warps = 2048 // 256
    found = kernel.red_sectors_per_warp_run(require(architecture), 2048)
    assert found == pytest.approx(32 + 1 / warps)
