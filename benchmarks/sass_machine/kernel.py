"""One call of act_mul_count, or of act_mul_count_quant, by its machine code, with the parameters
that the launcher makes."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import sass
from sass_machine.machine import Machine, Step
from sass_machine.memory import ADD, LOAD, STORE, Memory
from sass_machine.operations import OPERATIONS
from sparcom import native
from sparcom.counting import ops, quant_ops

ARCHITECTURES = ("sm_80", "sm_90")


@dataclass(frozen=True)
class Launched:
    """What a launch has done.

    kernel: its mangled name. blocks: of the grid. executed: instructions, each for all lanes that
    stood there. sectors: (address of the instruction, warps, sectors touched) of each addition.
    """

    kernel: str
    blocks: int
    executed: int
    sectors: tuple[tuple[int, int, int], ...]


@functools.cache
def steps(architecture: str, kernel: str) -> tuple[Step, ...]:
    """The decoded code of a kernel, one entry for each 16 bytes."""
    lines = sass.code(architecture)[kernel]
    if [line.address for line in lines] != list(range(0, 16 * len(lines), 16)):
        raise ValueError(f"sass_machine: {kernel} has gaps between its instructions")
    return tuple(Step.of(*line) for line in lines)


def act_mul_count(
    gate: Tensor, up: Tensor | None, bins: Tensor, counts: Tensor, rows: Tensor, *,
    activation: str = "silu", threshold: float = 0.0, signal: str = "gate",
    keep: Tensor | None = None, fill: Tensor | None = None, expert: Tensor | None = None,
    signs: Tensor | None = None, out: Tensor | None = None, striped: bool = False,
    architecture: str = "sm_80", multiprocessors: int = 1, error: float = 0.0,
) -> tuple[Tensor, Launched]:  # fmt: skip
    """(out, what was launched), as `ops.act_mul_count` on a device with so many multiprocessors.

    error: of the special function unit (arithmetic.special). Raises AccessError if an access
    is not allowed.
    """
    out = torch.empty_like(gate, memory_format=torch.contiguous_format) if out is None else out
    inputs = (
        gate, up, bins, counts, rows, activation, threshold, signal, keep, fill, expert, signs, out,
    )  # fmt: skip
    ops._fake_out(*inputs)
    launched = _launch(
        native._cuda.plan, inputs, (out,), lambda here: (), multiprocessors, striped, architecture,
        error,
    )  # fmt: skip
    return out, launched


def act_mul_count_quant(
    gate: Tensor, up: Tensor | None, bins: Tensor, counts: Tensor, rows: Tensor, q: Tensor,
    scales: Tensor, *,
    activation: str = "silu", threshold: float = 0.0, signal: str = "gate",
    keep: Tensor | None = None, fill: Tensor | None = None, expert: Tensor | None = None,
    signs: Tensor | None = None, ue8m0: bool = False, striped: bool = False,
    architecture: str = "sm_80", multiprocessors: int = 1, error: float = 0.0,
) -> Launched:  # fmt: skip
    """What was launched, as `quant_ops.act_mul_count_quant` on such a device; q and scales are
    written."""
    inputs = (
        gate, up, bins, counts, rows, activation, threshold, signal, keep, fill, expert, signs, q,
    )  # fmt: skip
    quant_ops.check_inputs(*inputs, scales)
    return _launch(
        native._cuda.plan_quant, inputs, (q, scales),
        lambda here: quant_ops.numbers(here[q], here[scales], ue8m0), multiprocessors, striped,
        architecture, error,
    )  # fmt: skip


def _launch(
    make_plan: Callable[..., dict], inputs: tuple, stored: tuple[Tensor, ...],
    more: Callable[[dict[Tensor, Tensor]], tuple], multiprocessors: int, striped: bool,
    architecture: str, error: float,
) -> Launched:  # fmt: skip
    """Run a kernel on copies of its tensors, and copy back what it has written.

    inputs: of `ops.launch`. stored: what it writes besides counts. more: of those copies, the
    numbers that a plan takes besides.
    """
    gate, up, bins, counts, rows, *_, keep, fill, expert, signs, _ = inputs
    given = dict.fromkeys((gate, up, bins, keep, fill, expert), LOAD)
    written = dict.fromkeys((counts, rows, signs), ADD) | dict.fromkeys(stored, STORE)
    used = {x: may for x, may in (given | written).items() if x is not None}
    memory = Memory(sum(x.untyped_storage().nbytes() + 256 for x in used))
    here = {x: memory.copy(x, may) for x, may in used.items()}
    launched = [Launched("", 0, 0, ())]

    def kernel(*numbers: float) -> None:
        plan = make_plan(*numbers)
        if plan["blocks"]:
            launched[0] = _run(plan, memory, architecture, error)

    copies = (here[x] if isinstance(x, Tensor) else x for x in inputs)
    ops.launch(kernel, (*more(here), multiprocessors, striped), *copies)
    for x in written:
        if x is not None:
            x.copy_(here[x])
    return launched[0]


def _run(plan: dict, memory: Memory, architecture: str, error: float) -> Launched:
    (kernel,) = (name for name in sass.code(architecture) if plan["kernel"] in name)
    offset, size = sass.parameters_at(architecture, kernel)
    parameters = plan["parameters"]
    if not 0 <= size - len(parameters) < 8:
        raise ValueError(f"sass_machine: {kernel} takes {size} bytes, not {len(parameters)}")
    banks = {0: b"\xcd" * offset + parameters + bytes(8)}
    if table := sass.sections(architecture).get(f".nv.constant2.{kernel}"):
        banks[2] = table
    code = steps(architecture, kernel)
    early = int(architecture.removeprefix("sm_")) >= 90  # as csrc/cuda/act_mul_count.cu launches it
    machine = Machine(
        code, OPERATIONS, banks, memory, plan["blocks"], plan["threads"], error, early
    )
    machine.run()
    if not machine.waited.any():
        raise ValueError(f"sass_machine: {kernel} may end before the kernels that it follows")
    return Launched(kernel, plan["blocks"], machine.executed, tuple(machine.sectors))


def red_sectors_per_warp_run(architecture: str, width: int, *, striped: bool = True) -> float:
    """Sectors of memory that a warp's additions touch for each run, of 256 counts and `rows`.

    Of bf16 silu, gated, with all gates positive and every row a run of its own, so that a warp at
    the end of a row adds to two bins.
    """
    rows = 8
    gate = torch.ones(rows, width, dtype=torch.bfloat16)
    bins = torch.arange(rows, dtype=torch.int32)
    counts, seen = (torch.zeros(s, dtype=torch.int32) for s in ((rows, width), (rows,)))
    multiprocessors = 1 + rows * width // 8 // 896  # so that each thread has one row
    _, done = act_mul_count(
        gate, gate, bins, counts, seen, striped=striped, architecture=architecture,
        multiprocessors=multiprocessors,
    )  # fmt: skip
    if not (bool((counts == 1).all()) and bool((seen == 1).all())):
        raise ValueError(f"sass_machine: wrong counts at width {width}")
    return sum(touched for _, _, touched in done.sectors) / -(-rows * (width // 8) // 32)
