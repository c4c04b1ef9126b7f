"""act_mul_count_quant: act_mul_count whose result leaves as 8-bit numbers, 128 columns to a scale.

`torch.ops.sparcom.act_mul_count_quant` is registered as `ops.act_mul_count` is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparcom import native
from sparcom.counting import ops, reference

GROUP = reference.GROUP
QUANTISED = {torch.float8_e4m3fn: 0, torch.int8: 1}
_NAME = "act_mul_count_quant"

_library = torch.library.Library("sparcom", "FRAGMENT")
_library.define(
    f"{_NAME}({ops.INPUTS}, Tensor(c!) q, Tensor(e!) scales, bool ue8m0=False, "
    "bool striped=False) -> ()",
    tags=ops.TAGS,
)


def act_mul_count_quant(
    gate: Tensor,
    up: Tensor | None,
    bins: Tensor,
    counts: Tensor,
    rows: Tensor,
    *,
    activation: str = "silu",
    threshold: float = 0.0,
    signal: str = "gate",
    keep: Tensor | None = None,
    fill: Tensor | None = None,
    expert: Tensor | None = None,
    signs: Tensor | None = None,
    dtype: torch.dtype = torch.float8_e4m3fn,
    column_major: bool = False,
    ue8m0: bool = False,
    q: Tensor | None = None,
    scales: Tensor | None = None,
    striped: bool = False,
) -> tuple[Tensor, Tensor]:
    """Apply an FFN activation, count, and quantise the result by groups of 128 columns.

        h, counts, rows, signs: as `act_mul_count`; h after keep and fill, rounded to its 16 bits
        m            = max(1e-10, max |h[r, i]|, 128 g <= i < 128 g + 128)
        scales[r, g] = m / largest          (ue8m0: the next power of two, of at least 1e-10)
        q[r, i]      = round(h[r, i] / scales[r, g]),      i in group g, to nearest even

    gate: [n, width] bfloat16 or float16, width a multiple of 128; strides as in `act_mul_count`. On
        CUDA every row starts at a multiple of 16 bytes.
    up, bins, counts, rows, activation, threshold, signal, keep, fill, signs, striped: as in
        `act_mul_count`.
    expert: [n] int32 or None. Of rows grouped by expert (DeepGEMM's contiguous layout), whose each
        is: its row of keep and fill, if there are any; or below 0 for padding, which is neither
        counted nor written. None: no padding, and row 0 of keep and fill.
    dtype: float8_e4m3fn (largest 448) or int8 (127); of q, if that is given.
    column_major: whether new scales lie column by column, as DeepGEMM reads them.
    q: [n, width] contiguous, to write to. scales: [n, width / 128] float32 to write to, of any
        strides (so also with padded columns). None: new tensors.

    Returns (q, scales). Raises InputError before anything is written. NaN in a group makes its
    scale NaN, an infinity makes it infinite; q of NaN is NaN in fp8 and 0 in int8.

    Of vLLM's definitions this is `silu_and_mul`, then `per_token_group_quant_fp8` (eps 1e-10, ue8m0
    as its CUDA kernel has it). Others differ: `silu_mul_per_token_group_quant_fp8_colmajor`
    multiplies by 1 / 448, so that the last place of a scale may be another, and its ue8m0 has no
    least scale; `silu_and_mul_per_block_quant` does not round h to 16 bits, and bounds the scale in
    place of m. int8 is rounded as by vLLM's fused kernel; `per_token_group_quant_int8` cuts off.
    Scales of UE8M0 packed in fours are not made here.

    >>> counts, rows = torch.zeros(1, 128, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    >>> gate, bins = torch.randn(3, 128).bfloat16(), torch.zeros(3, dtype=torch.int32)
    >>> q, scales = act_mul_count_quant(gate, gate, bins, counts, rows)
    """
    if q is None:
        q = torch.empty(gate.shape, dtype=dtype, device=gate.device)
    if scales is None:
        scales = new_scales(gate, column_major)
    torch.ops.sparcom.act_mul_count_quant.default(
        gate, up, bins, counts, rows, activation, threshold, signal, keep, fill, expert, signs, q,
        scales, ue8m0, striped,
    )  # fmt: skip
    return q, scales


def new_scales(h: Tensor, column_major: bool = False) -> Tensor:
    """[n, width / 128] float32 for the scales of h [n, width], on its device, not filled in."""
    n, groups = h.shape[0], h.shape[1] // GROUP
    if column_major:
        return torch.empty(groups, n, device=h.device, dtype=torch.float32).T
    return torch.empty(n, groups, device=h.device, dtype=torch.float32)


def check_inputs(
    gate: Tensor, up: Tensor | None, bins: Tensor, counts: Tensor, rows: Tensor, activation: str,
    threshold: float, signal: str, keep: Tensor | None, fill: Tensor | None, expert: Tensor | None,
    signs: Tensor | None, q: Tensor, scales: Tensor, ue8m0: bool = False, striped: bool = False,
) -> None:  # fmt: skip
    """Raise InputError if the inputs do not fit; the kernel checks memory. Also the fake."""
    ablating = keep is not None or fill is not None
    ops.check_inputs(
        gate, up, bins, counts, rows, activation, threshold, signal, keep, fill,
        expert if ablating else None, signs, name=_NAME,
    )  # fmt: skip
    n, width = gate.shape
    if gate.dtype is torch.float32 or width == 0 or width % GROUP:
        ops.fail("gate", f"[rows, a multiple of {GROUP}] bfloat16 or float16", gate, _NAME)
    if expert is not None:
        ops.check_tensor("expert", expert, torch.int32, gate, (n,), _NAME)
    if q.dtype not in QUANTISED:
        ops.fail("q", f"[{n}, {width}] float8_e4m3fn or int8", q, _NAME)
    ops.check_tensor("q", q, q.dtype, gate, gate.shape, _NAME)
    fits = scales.shape == (n, width // GROUP) and scales.device == gate.device
    if scales.dtype is not torch.float32 or not fits or _overlaps(scales):
        expected = f"[{n}, {width // GROUP}] float32 on {gate.device}, no two of them in one place"
        ops.fail("scales", expected, scales, _NAME)


def _overlaps(x: Tensor) -> bool:
    """Whether two elements of x [rows, columns] may lie in one place."""
    (inner, n), (outer, _) = sorted(zip(x.stride(), x.shape, strict=True))
    return x.numel() > 1 and not (outer >= (n - 1) * inner + 1 and (inner > 0 or n <= 1))


def _cpu(
    gate: Tensor, up: Tensor | None, bins: Tensor, counts: Tensor, rows: Tensor, activation: str,
    threshold: float, signal: str, keep: Tensor | None, fill: Tensor | None, expert: Tensor | None,
    signs: Tensor | None, q: Tensor, scales: Tensor, ue8m0: bool = False, striped: bool = False,
) -> None:  # fmt: skip
    """Two passes: there is no kernel for it, since the kernels that follow have none either."""
    check_inputs(
        gate, up, bins, counts, rows, activation, threshold, signal, keep, fill, expert, signs, q,
        scales, ue8m0, striped,
    )  # fmt: skip
    real = None if expert is None else expert >= 0
    if real is not None:
        bins = torch.where(real, bins, -1)
    of_table = None if keep is fill is None or expert is None else expert.clamp(min=0)
    h = ops.act_mul_count(
        gate, up, bins, counts, rows, activation=activation, threshold=threshold, signal=signal,
        keep=keep, fill=fill, expert=of_table, signs=signs, striped=striped,
    )  # fmt: skip
    for to, made in zip((q, scales), reference.quantise(h, q.dtype, ue8m0=ue8m0), strict=True):
        if real is None:
            to.copy_(made)
        else:
            to[real] = made[real]


def _cuda(*inputs: Any) -> None:
    """Queue the kernel on the current stream of gate's device."""
    check_inputs(*inputs)
    *tensors, q, scales = inputs[: ops.TENSORS + 2]
    ue8m0, striped = (*inputs[ops.TENSORS + 2 :], False, False)[:2]
    kernel, device = native.cuda().act_mul_count_quant, q.device
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream().cuda_stream
        where = (*numbers(q, scales, ue8m0), device.index, stream, striped, native.pdl())
        ops.launch(kernel, where, *(*tensors, q))


def numbers(q: Tensor, scales: Tensor, ue8m0: bool) -> tuple[int, ...]:
    """The numbers of csrc/act_mul_count_quant.h, in the order of csrc/bindings/call.h."""
    return (scales.data_ptr(), *scales.stride(), QUANTISED[q.dtype], ue8m0)


_library.impl(_NAME, _cpu, "CPU")
_library.impl(_NAME, _cuda, "CUDA")
torch.library.register_fake(f"sparcom::{_NAME}", check_inputs, lib=_library)
