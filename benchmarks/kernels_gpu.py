"""The GPU part of the kernel bench: act_mul_count against torch on a device, or an estimate.

On a device: the results are checked first; then one run gives the median time of each shape, with
vLLM's silu_and_mul if there is one, torch's calls, and a device copy of the same bytes. Without a
device: ptxas's figures of the kernels and a roofline per card, both marked as estimates.
`benchmarks/kernels.py` is the command.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import sass
import silu_and_mul
from common import print_table
from sass_machine.kernel import ARCHITECTURES, red_sectors_per_warp_run
from sparcom import native
from sparcom.counting import layout, reference
from sparcom.counting.ops import act_mul_count
from sparcom.counting.quant_ops import act_mul_count_quant

ROUNDS, WARM_UP = 30, 5
BYTES = 6  # per element: bf16, two reads and one write
QUANT_BYTES = 5 + 4 / 128  # the write in fp8, with a scale for each 128 columns
DEVICE = "cuda"


@dataclass(frozen=True)
class Shape:
    """Rows and their bins. run: mean number of neighbouring rows with the same bin."""

    name: str
    rows: int
    width: int
    run: float

    @property
    def elements(self) -> int:
        return self.rows * self.width

    @property
    def count_bytes(self) -> float:
        """Bytes that read and write each count once per run."""
        return 8 * self.elements / self.run


# A prompt has 100 tokens; a token takes 4 of 60 experts.
SHAPES = (
    Shape("prompts", 4096, 11008, 100),
    Shape("prompts, 7B shard", 4096, 1376, 100),
    Shape("decode", 256, 11008, 1),
    Shape("routed, by expert", 16384, 1408, 100 * 4 / 60),
    Shape("routed, by token", 16384, 1408, 1),
)


@dataclass(frozen=True)
class Card:
    """Public figures of a card: architecture, multiprocessors, boost clock, memory bandwidth."""

    name: str
    architecture: str
    multiprocessors: int
    ghz: float
    tb_per_s: float


CARDS = (
    Card("A100 80GB", "sm_80", 108, 1.41, 2.04),
    Card("H100 SXM", "sm_90", 132, 1.83, 3.35),
    Card("H200 SXM", "sm_90", 132, 1.83, 4.80),
    Card("B200", "sm_100", 148, 1.85, 8.00),
    Card("RTX PRO 6000", "sm_120", 188, 2.40, 1.79),
)
LANES = 128  # instructions a multiprocessor issues in a clock, times 32 threads


def run() -> dict[str, Any]:
    """Print the table for this machine and return its figures."""
    return measure() if torch.cuda.is_available() else estimate()


# --- on a device ----------------------------------------------------------------------------------


def bins_of(shape: Shape) -> tuple[torch.Tensor, int]:
    """Bins in runs of `run` rows on average, shuffled so that neighbours differ."""
    run = torch.floor(torch.arange(shape.rows) / shape.run).to(torch.int32)
    n = int(run[-1]) + 1
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0)).to(torch.int32)
    return order[run].to(DEVICE), n


def device_times(calls: dict[str, Callable[[int], object]]) -> dict[str, float]:
    """Median seconds of each call, all calls in each round. Each is given the round's number."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(WARM_UP + ROUNDS):
        for name, call in calls.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call(turn)
            end.record()
            end.synchronize()
            if turn >= WARM_UP:
                times[name].append(start.elapsed_time(end) / 1e3)
    return {name: statistics.median(t) for name, t in times.items()}


class Inputs:
    """Gates and ups of a shape, so many in turn that none is still in the L2 cache; and buffers."""

    def __init__(self, shape: Shape, bytes_per_element: float) -> None:
        self.shape, self.sets = shape, 1 + int(256e6 / (BYTES * shape.elements))
        self.striped = layout.striped(torch.device(DEVICE))  # as the recorder's
        self.both = torch.randn(self.sets, shape.rows, 2 * shape.width, device=DEVICE).bfloat16()
        self.bins, n_bins = bins_of(shape)
        self.counts = torch.zeros(n_bins, shape.width, dtype=torch.int32, device=DEVICE)
        self.rows = torch.zeros(n_bins, dtype=torch.int32, device=DEVICE)
        self.out = torch.empty(self.sets, shape.rows, shape.width, dtype=torch.bfloat16,
                               device=DEVICE)  # fmt: skip
        size = int(shape.elements * bytes_per_element / 2)  # a copy reads and writes each byte
        self.source = torch.empty(self.sets, size, dtype=torch.uint8, device=DEVICE)
        self.copied = torch.empty_like(self.source)

    def halves(self, turn: int) -> tuple[torch.Tensor, ...]:
        return self.both[turn % self.sets].chunk(2, dim=1)

    def copy(self, turn: int) -> None:
        self.copied[turn % self.sets].copy_(self.source[turn % self.sets])

    def check(self) -> None:
        """Exit unless the counts are those of one call with the inputs of turn 0."""
        counts, rows = torch.zeros_like(self.counts), torch.zeros_like(self.rows)
        reference.act_mul_count(*self.halves(0), self.bins, counts, rows)
        ours = layout.in_order(self.counts) if self.striped else self.counts
        if not (torch.equal(ours, counts) and torch.equal(self.rows, rows)):
            raise SystemExit(f"kernels: wrong counts at {self.shape}; run the tests marked gpu")


def measure_shape(shape: Shape) -> dict[str, float]:
    """Seconds of ours, torch's activation alone, torch with counts, a copy, and vLLM's if any."""
    given = Inputs(shape, BYTES)
    at = given.bins.long()

    def out(i: int) -> torch.Tensor:
        return given.out[i % given.sets]

    def ours(i: int) -> None:
        act_mul_count(*given.halves(i), given.bins, given.counts, given.rows, out=out(i),
                      striped=given.striped)  # fmt: skip

    def activation(i: int) -> None:
        gate, up = given.halves(i)
        torch.mul(torch.nn.functional.silu(gate), up, out=out(i))

    def unfused(i: int) -> None:
        activation(i)
        given.counts.index_add_(0, at, (given.halves(i)[0] > 0).to(torch.int32))

    ours(0)
    given.check()
    calls = {"ours": ours, "torch": activation, "unfused": unfused, "copy": given.copy}
    baseline, _ = silu_and_mul.find(DEVICE)
    if baseline is not None:
        calls["vllm"] = lambda i: baseline(out(i), given.both[i % given.sets])
    return device_times(calls)


def measure_quant(shape: Shape) -> dict[str, float]:
    """Seconds of act_mul_count_quant in fp8, of act_mul_count and quantising by torch, of a copy,
    and of vLLM's silu_and_mul with its quantising if there are any."""
    given = Inputs(shape, QUANT_BYTES)
    q = torch.empty(given.sets, shape.rows, shape.width, dtype=torch.float8_e4m3fn, device=DEVICE)
    scales = torch.empty(given.sets, shape.rows, shape.width // 128, device=DEVICE)

    def ours(i: int) -> None:
        at = i % given.sets
        act_mul_count_quant(*given.halves(i), given.bins, given.counts, given.rows, q=q[at],
                            scales=scales[at], striped=given.striped)  # fmt: skip

    def unfused(i: int) -> None:
        h = act_mul_count(*given.halves(i), given.bins, given.counts, given.rows,
                          out=given.out[i % given.sets], striped=given.striped)  # fmt: skip
        reference.quantise(h, torch.float8_e4m3fn)

    ours(0)
    given.check()
    calls = {"ours": ours, "unfused": unfused, "copy": given.copy}
    baseline, _ = silu_and_mul.find(DEVICE)
    if baseline is not None:
        from vllm.model_executor.layers.quantization.utils.fp8_utils import (
            per_token_group_quant_fp8,
        )

        def vllm(i: int) -> None:
            h = given.out[i % given.sets]
            baseline(h, given.both[i % given.sets])
            per_token_group_quant_fp8(h, 128)

        calls["vllm"] = vllm
    return device_times(calls)


def measure() -> dict[str, Any]:
    """act_mul_count on this device: us, GB/s, and the percent of a copy of the same bytes."""
    source = silu_and_mul.find(DEVICE)[1]
    print(f"GPU: silu_and_mul: {source}")
    found, table = {}, []
    for shape in SHAPES:
        seconds = measure_shape(shape)
        ours = seconds["ours"]
        found[shape.name] = f = {
            "us": ours * 1e6,
            "gb_per_s": BYTES * shape.elements / ours / 1e9,
            "copy_fraction": seconds["copy"] / ours,
            "torch_ratio": seconds["torch"] / ours,
            "unfused_ratio": seconds["unfused"] / ours,
        }
        if "vllm" in seconds:
            f["silu_ratio"] = seconds["vllm"] / ours
        vllm = f"{seconds['vllm'] * 1e6:.1f}" if "vllm" in seconds else "-"
        table.append(
            [f"{shape.name} {shape.rows}x{shape.width}", vllm,
             *(f"{seconds[name] * 1e6:.1f}" for name in ("torch", "unfused", "ours")),
             f"{f['gb_per_s']:.0f}", f"{f['unfused_ratio']:.2f}", f"{100 * f['copy_fraction']:.0f}"]
        )  # fmt: skip
    head = ["shape", "silu_and_mul us", "silu, mul us", "with counts us", "ours us", "GB/s",
            "ratio counting", "% of copy"]  # fmt: skip
    print_table(head, table)
    found |= measure_quantised()
    return {"device": torch.cuda.get_device_name(), "silu_and_mul": source, "shapes": found}


def measure_quantised() -> dict[str, dict[str, float]]:
    """act_mul_count_quant on this device, where the width is a multiple of 128."""
    found, table = {}, []
    for shape in (one for one in SHAPES if one.width % 128 == 0):
        seconds = measure_quant(shape)
        ours = seconds["ours"]
        found[f"{shape.name}, fp8"] = f = {
            "us": ours * 1e6,
            "gb_per_s": QUANT_BYTES * shape.elements / ours / 1e9,
            "copy_fraction": seconds["copy"] / ours,
            "unfused_ratio": seconds["unfused"] / ours,
        }
        vllm = f"{seconds['vllm'] * 1e6:.1f}" if "vllm" in seconds else "-"
        table.append(
            [f"{shape.name} {shape.rows}x{shape.width}", vllm,
             *(f"{seconds[name] * 1e6:.1f}" for name in ("unfused", "ours")),
             f"{f['gb_per_s']:.0f}", f"{f['unfused_ratio']:.2f}", f"{100 * f['copy_fraction']:.0f}"]
        )  # fmt: skip
    head = ["shape, to fp8", "vllm's two us", "ours, then torch us", "ours in one us", "GB/s",
            "ratio", "% of copy"]  # fmt: skip
    print_table(head, table)
    return found


# --- without one ----------------------------------------------------------------------------------


def roofline(shape: Shape, card: Card, instructions: float | None) -> tuple[float, str]:
    """(seconds at best, what limits): the bytes at the card's bandwidth, or the instructions.

    instructions: issued per element; None where they could not be counted.
    """
    memory = (BYTES * shape.elements + shape.count_bytes) / (card.tb_per_s * 1e12)
    if instructions is None:
        return memory, "memory"
    issue = instructions * shape.elements / (card.multiprocessors * LANES * card.ghz * 1e9)
    return max((memory, "memory"), (issue, "issue"))


def estimate() -> dict[str, Any]:
    """Print the compiler's figures and what the cards' figures allow."""
    print("No CUDA device: everything below is an ESTIMATE; nothing was run.")
    ptxas = compiled()
    found: dict[str, Any] = {}
    table = []
    for card in CARDS:
        instructions = ptxas.get(card.architecture, {}).get("instructions_per_element")
        for shape in SHAPES:
            seconds, limit = roofline(shape, card, instructions)
            found[f"{card.name}, {shape.name}"] = seconds * 1e6
            table.append([f"{card.name}, {shape.name}", f"{seconds * 1e6:.1f}", limit])
    print_table(["card and shape", "us at best (estimate)", "limit"], table)
    return {"estimate": True, "us_at_best": found, "ptxas": ptxas}


def bars() -> dict[str, float]:
    """red_sectors_per_warp_run: the most, over SHAPES, by the machine code of the CUDA part.

    A warp adds the 256 counts of a run in so many sectors of memory; in order it would be 256.
    """
    if sass.missing():
        return {}
    built = {f"sm_{a}" for a in native._cuda.info()["cuda_architectures"].split()}
    found = {
        (architecture, width): red_sectors_per_warp_run(architecture, width)
        for architecture in ARCHITECTURES if architecture in built
        for width in {shape.width for shape in SHAPES}
    }  # fmt: skip
    return {"red_sectors_per_warp_run": max(found.values())} if found else {}


def compiled() -> dict[str, Any]:
    """For each architecture that can be read: the registers of the largest kernel, and how many
    instructions bf16 silu issues per element.
    """
    if sass.missing():
        print(f"ptxas: {sass.missing()}; the roofline is that of the memory alone")
        return {}
    found = {
        architecture: {
            "kernels": len(kernels),
            "most_registers": max(k["REG"] for k in kernels.values()),
            "spilled_bytes": sum(k["LOCAL"] + k["STACK"] for k in kernels.values()),
            "instructions_per_element": round(sass.instructions_per_element(architecture), 1),
        }
        for architecture, kernels in sass.usage().items()
    }
    print_table(
        ["ptxas", "kernels", "most registers", "spilled bytes", "instructions per element"],
        [[name, *figures.values()] for name, figures in found.items()],
    )
    return found
