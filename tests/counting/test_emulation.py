"""The CUDA kernel without a GPU: its header as plain C++, with a loop over all threads."""

import functools

import pytest
import torch
from emulation import act_mul_count, emulation
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import ACTIVATIONS, Case, cases, check, check_activation, draw

from sparcom.counting.ops import DTYPES
from sparcom.errors import InputError

HALVES = [torch.bfloat16, torch.float16]


@settings(max_examples=400, deadline=None)
@given(case=cases(), multiprocessors=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_property_any_case(case: Case, multiprocessors: int, seed: int) -> None:
    check(functools.partial(act_mul_count, multiprocessors=multiprocessors, seed=seed), case)


@pytest.mark.parametrize("width", [897, 4 * 897])
def test_signs_of_a_run_longer_than_a_thread_sums_in_one_word(width: int) -> None:
    gate, up = (draw(2100, width, torch.float32, seed) for seed in (0, 1))
    gate[:, 0], up[:, 0] = 1.0, 1.0  # every row counts
    bins = (torch.arange(2100) // 2050).to(torch.int32) - 1  # the first run is not counted
    launch = emulation().launch(2100, width, DTYPES[torch.float32], 1)
    for each in (bins, bins + 1):
        check(act_mul_count, Case(gate, up, each, 2, signs=True))
    assert launch["rows_per_thread"] == 2100


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(1, 2**32 - 1), dtype=st.sampled_from(list(DTYPES)))
def test_no_order_of_threads_changes_a_result(seed: int, dtype: torch.dtype) -> None:
    gate = draw(97, 1160, dtype, seed % 1000)
    bins = torch.arange(97, dtype=torch.int32) // 9 - 1
    case = Case(gate, gate, bins, 10)

    def results(order: int):
        return check(functools.partial(act_mul_count, multiprocessors=2, seed=order), case)

    launch = emulation().launch(97, 1160, DTYPES[dtype], 2)
    assert launch["blocks"] > 1  # several threads share the rows
    assert 1 < launch["rows_per_thread"] < 97
    for ours, other in zip(results(0)[1:], results(seed)[1:], strict=True):
        assert torch.equal(ours, other)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_every_half(dtype: torch.dtype, activation: str, seed: int) -> None:
    """All 65,536 patterns, with four kinds of error of the special function unit."""
    gate = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)[None]
    bins = torch.zeros(1, dtype=torch.int32)
    counts, rows = (torch.zeros(s, dtype=torch.int32) for s in ((1, 2**16), (1,)))
    out, _ = act_mul_count(gate, None, bins, counts, rows, activation=activation, seed=seed)
    check_activation(out, gate, activation)
    assert torch.equal(counts[0].bool(), gate[0] > 0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_floats_near_and_far(activation: str) -> None:
    """Patterns spread over all floats, and a dense grid where f bends."""
    generator = torch.Generator().manual_seed(0)
    anywhere = torch.randint(-(2**31), 2**31, (2**18,), generator=generator)
    gate = torch.cat(
        [anywhere.to(torch.int32).view(torch.float32), torch.linspace(-110, 20, 2**18)]
    )
    case = Case(gate[None], None, torch.zeros(1, dtype=torch.int32), 1, {"activation": activation})
    check(act_mul_count, case)


def test_aligned_rows_take_the_path_of_16_bytes() -> None:
    def vectors(gate: torch.Tensor, up: torch.Tensor | None = None, **options) -> bool:
        bins = torch.zeros(len(gate), dtype=torch.int32)
        width = gate.shape[1]
        counts, rows = (torch.zeros(s, dtype=torch.int32) for s in ((1, width), (1,)))
        return act_mul_count(gate, up, bins, counts, rows, **options)[1]["vectors"]

    both = draw(3, 160, torch.bfloat16, 0)
    assert vectors(both[:, :80], both[:, 80:])
    assert vectors(both[:, :80], both[:, 80:], keep=torch.ones(1, 80, dtype=torch.bfloat16))
    assert not vectors(both[:, 1:81])  # gate starts off 16 bytes
    assert not vectors(both[:, :80], both[:, 4:84])  # up does
    assert not vectors(both[:, :83])  # the rows of out do
    assert not vectors(draw(3, 164, torch.bfloat16, 0)[:, :80])  # the rows of gate do
    assert vectors(draw(3, 164, torch.float32, 0))


H100, SMALLEST = 132, 20  # multiprocessors


@pytest.mark.parametrize(
    ("name", "rows", "width", "multiprocessors", "rows_per_thread", "share"),
    [
        ("prompts", 4096, 11008, H100, 49, 0.95),
        ("prompts, small device", 4096, 11008, SMALLEST, 316, 0.95),
        ("decode", 256, 11008, H100, 4, 0.70),
        ("routed, 60 experts", 4 * 4096, 1408, H100, 25, 0.95),
        ("routed, decode", 4 * 256, 1408, H100, 2, 0.70),
        ("a few tokens", 7, 1408, H100, 1, 0.0),
    ],
)
def test_launch_fills_the_device_once(
    name: str, rows: int, width: int, multiprocessors: int, rows_per_thread: int, share: float
) -> None:
    launch = emulation().launch(rows, width, DTYPES[torch.bfloat16], multiprocessors)
    assert launch["threads_per_row"] == width // 8
    assert launch["rows_per_thread"] == rows_per_thread, name
    resident = emulation().blocks_per_multiprocessor * multiprocessors
    assert share * resident <= launch["blocks"] <= resident


def test_launch_of_nothing_and_of_too_much() -> None:
    assert emulation().launch(0, 64, 1, 132)["blocks"] == 0
    assert emulation().launch(5, 0, 1, 132)["blocks"] == 1  # rows are still counted
    assert emulation().launch(2**33, 8, 1, 132)["rows_per_thread"] > 1  # int64 rows
    with pytest.raises(ValueError, match=r"gate must have a width below 2\^32"):
        emulation().launch(1, 2**36, 1, 132)


def test_wrong_memory_is_refused_before_the_launch() -> None:
    gate = draw(2, 8, torch.float32, 0)
    counts, rows = (torch.zeros(s, dtype=torch.int32) for s in ((1, 8), (1,)))
    bins = torch.zeros(2, dtype=torch.int32)
    with pytest.raises(InputError, match="out must not share memory with gate"):
        act_mul_count(gate, None, bins, counts, rows, out=gate)
