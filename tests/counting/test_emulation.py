"""The CUDA kernel without a GPU: its header as plain C++, with a loop over all threads."""

import functools

import pytest
import torch
from emulation import act_mul_count, additions, emulation, in_order
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import ACTIVATIONS, Case, cases, check, check_activation, draw

from sparcom.counting import layout
from sparcom.counting.ops import DTYPES
from sparcom.errors import InputError

HALVES = [torch.bfloat16, torch.float16]


@settings(max_examples=400, deadline=None)
@given(
    case=cases(),
    multiprocessors=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
    striped=st.booleans(),
    wide=st.booleans(),
)
def test_property_any_case(
    case: Case, multiprocessors: int, seed: int, striped: bool, wide: bool
) -> None:
    call = in_order if striped else act_mul_count
    check(functools.partial(call, multiprocessors=multiprocessors, seed=seed, wide=wide), case)


@pytest.mark.parametrize("width", [897, 4 * 897])
def test_signs_of_a_run_longer_than_a_thread_sums_in_one_word(width: int) -> None:
    gate, up = (draw(2100, width, torch.float32, seed) for seed in (0, 1))
    gate[:, 0], up[:, 0] = 1.0, 1.0  # every row counts
    bins = (torch.arange(2100) // 2050).to(torch.int32) - 1  # the first run is not counted
    launch = emulation().launch(2100, width, DTYPES[torch.float32], 1, False)
    for each in (bins, bins + 1):
        check(act_mul_count, Case(gate, up, each, 2, signs=True))
        check(in_order, Case(gate, up, each, 2, signs=True))
    assert launch["rows_per_thread"] == 2100


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(1, 2**32 - 1), dtype=st.sampled_from(list(DTYPES)))
def test_no_order_of_threads_changes_a_result(seed: int, dtype: torch.dtype) -> None:
    gate = draw(97, 1160, dtype, seed % 1000)
    bins = torch.arange(97, dtype=torch.int32) // 9 - 1
    case = Case(gate, gate, bins, 10)

    def results(order: int):
        return check(functools.partial(act_mul_count, multiprocessors=2, seed=order), case)

    launch = emulation().launch(97, 1160, DTYPES[dtype], 2, False)
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


def test_aligned_floats_and_turns_take_the_path_of_32_bytes() -> None:
    """On devices that have it; floats only where threads of 16 bytes would have several rows."""

    def wide(gate: torch.Tensor, up: torch.Tensor, activation: str = "silu", **more) -> bool:
        width = gate.shape[1]
        counts, rows = (torch.zeros(s, dtype=torch.int32) for s in ((1, width), (1,)))
        more = {"multiprocessors": 0, "wide": True, "activation": activation} | more
        bins = torch.zeros(len(gate), dtype=torch.int32)
        launch = act_mul_count(gate, up, bins, counts, rows, **more)[1]
        turns = gate.stride(1) == 2
        bytes_ = 32 if launch["wide"] and not turns else 16
        assert launch["threads_per_row"] == (width * gate.itemsize // bytes_ or 1)
        return launch["wide"]

    both = draw(3, 168, torch.float32, 0)
    assert wide(both[:, :80], both[:, 80:160])
    assert not wide(both[:, :80], both[:, 80:160], wide=False)
    assert not wide(both[:, :80], both[:, 80:160], multiprocessors=1)  # a row for each thread
    assert not wide(both[:, 4:84], both[:, 88:168])  # gate starts off 32 bytes
    assert not wide(both[:, :80], both[:, 84:164])  # up does
    assert not wide(both[:, :76], both[:, 80:156])  # the rows of out do
    assert not wide(both[:, :80], both[:, 80:160], threshold=0.5, signal="product")
    assert not wide(both[:, :80], both[:, 80:160], keep=torch.ones(1, 80))
    assert not wide(both[:, :80], both[:, 80:160], "situ")
    for dtype in DTYPES:
        turns, floats = draw(3, 168, dtype, 0), dtype is torch.float32
        assert wide(turns[:, :160:2], turns[:, 1:160:2], "swiglu") == floats  # 336 bytes of halves
        turns = draw(3, 160, dtype, 0)
        assert wide(turns[:, ::2], turns[:, 1::2], "swiglu")
        assert wide(turns[:, :80].contiguous(), turns[:, 80:].contiguous()) == floats


@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize("width", [8, 136, 264, 1376])
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_accesses_of_32_bytes_change_no_result(dtype: torch.dtype, width: int, signs: bool) -> None:
    """Floats apart, and gate and up that take turns, in long and short runs."""
    seen = []

    def call(kernel, *inputs, **options):
        out, launch = kernel(*inputs, multiprocessors=0, wide=True, seed=width, **options)
        seen.append(launch["wide"])
        return out

    both = draw(37, 2 * width, dtype, width)
    apart, turns = (both[:, :width], both[:, width:]), (both[:, ::2], both[:, 1::2])
    for kernel in (act_mul_count, in_order):
        for bins in (torch.arange(37) // 15 - 1, torch.arange(37) % 3 - 1):
            for (gate, up), activation in ((apart, "gelu"), (turns, "swiglu(limit=1.3)")):
                wanted = gate is turns[0] or dtype is torch.float32
                options = {"activation": activation}
                case = Case(gate, up, bins.to(torch.int32), 2, options, signs)
                check(functools.partial(call, kernel), case)
                assert seen.pop() == wanted


@pytest.mark.parametrize("width", [1, 7, 8, 13, 64, 255, 256, 264, 1376, 1408, 2047, 11008])
def test_every_thread_finds_the_places_that_the_layout_says(width: int) -> None:
    places = layout.places(width).tolist()
    assert sorted(places) == list(range(width))
    for columns in (1, *(n for n in (4, 8) if width % n == 0)):  # of a thread
        assert emulation().places(width, columns, True) == places
        assert emulation().places(width, columns, False) == list(range(width))
    block = min(width, 256) // 8
    for i in range(8):  # the i-th columns of a warp's threads are neighbours
        assert places[i : 8 * block : 8] == list(range(i * block, (i + 1) * block))


def red_sectors(width: int, dtype: torch.dtype, striped: bool, wide: bool = False) -> list[int]:
    """Sectors that the additions of each warp touch, in rows that are a run each.

    wide: of a thread with 32 bytes, only in one row, the first.
    """
    rows = 5
    gate = torch.ones(rows, width, dtype=dtype)
    bins = torch.arange(rows, dtype=torch.int32)
    found = additions(gate, torch.where(bins > 0, -1, 0) if wide else bins, rows, striped, wide)
    columns = (32 if wide else 16) // dtype.itemsize
    per_warp = []
    for warp in range(0, len(found), 32):
        lanes = [lane for lane in found[warp : warp + 32] if lane]
        # Each lane adds its columns one by one, in step with the others; then one adds to rows.
        steps = [{lane[k] // 32 for lane in lanes} for k in range(columns)]
        own = [lane[columns] // 32 for lane in lanes if len(lane) > columns]
        per_warp.append(sum(map(len, steps)) + len(set(own)))
    return [n for n in per_warp if n]


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_additions_of_a_warp_cover_neighbouring_words(dtype: torch.dtype) -> None:
    """Of every width, also where a warp has the end of one row and the start of another.

    (Below 128 columns a warp has several whole rows, and so more bins than that.)
    """
    worst = max(max(red_sectors(width, dtype, True)) for width in range(128, 1100, 8))
    assert worst <= 64
    columns = 16 // dtype.itemsize
    assert set(red_sectors(2048, dtype, True)) == {4 * columns, 4 * columns + 1}
    if dtype is torch.float32:  # 8 columns, as of halves
        assert set(red_sectors(2048, dtype, True, wide=True)) == {32, 33}
        assert max(max(red_sectors(w, dtype, True, wide=True)) for w in range(256, 1100, 8)) <= 64
    # In order, a thread of halves has a sector of its own, and two threads of floats one.
    alone = 32 * columns if columns == 8 else 16 * columns
    assert set(red_sectors(2048, dtype, False)) == {alone, alone + 1}


H100, SMALLEST = 132, 20  # multiprocessors


@pytest.mark.parametrize(
    ("name", "rows", "width", "multiprocessors", "in_order", "striped", "waves"),
    [
        ("prompts", 4096, 11008, H100, 49, 17, 3),
        ("prompts, small device", 4096, 11008, SMALLEST, 316, 79, 4),
        ("decode", 256, 11008, H100, 4, 4, 1),
        ("routed, 60 experts", 4 * 4096, 1408, H100, 25, 25, 1),
        ("routed, long prompts", 16 * 4096, 1408, H100, 98, 25, 4),
        ("routed, decode", 4 * 256, 1408, H100, 2, 2, 1),
        ("a few tokens", 7, 1408, H100, 1, 1, 1),
    ],
)
def test_launch_fills_the_device(
    name: str, rows: int, width: int, multiprocessors: int, in_order: int, striped: int, waves: int
) -> None:
    """Once with counts in order; up to four times striped, if each thread keeps 16 rows."""
    resident = emulation().blocks_per_multiprocessor * multiprocessors
    for stripes, rows_per_thread, times in ((False, in_order, 1), (True, striped, waves)):
        launch = emulation().launch(rows, width, DTYPES[torch.bfloat16], multiprocessors, stripes)
        assert launch["threads_per_row"] == width // 8
        assert launch["rows_per_thread"] == rows_per_thread, name
        share = launch["blocks"] / resident
        assert share <= times
        if rows_per_thread > 4:
            assert share >= 0.9 * times  # else there are too few rows
        assert rows_per_thread >= 16 or times == 1


def test_launch_of_nothing_and_of_too_much() -> None:
    assert emulation().launch(0, 64, 1, 132, True)["blocks"] == 0
    assert emulation().launch(5, 0, 1, 132, True)["blocks"] == 1  # rows are still counted
    assert emulation().launch(2**33, 8, 1, 132, True)["rows_per_thread"] > 1  # int64 rows
    for width in (2**32, 2**36):
        with pytest.raises(ValueError, match=r"gate must have a width below 2\^32"):
            emulation().launch(1, width, 1, 132, False)


def test_wrong_memory_is_refused_before_the_launch() -> None:
    gate = draw(2, 8, torch.float32, 0)
    counts, rows = (torch.zeros(s, dtype=torch.int32) for s in ((1, 8), (1,)))
    bins = torch.zeros(2, dtype=torch.int32)
    with pytest.raises(InputError, match="out must not share memory with gate"):
        act_mul_count(gate, None, bins, counts, rows, out=gate)
