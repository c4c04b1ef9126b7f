"""act_mul_count: activation, product, threshold and per-neuron counting in one pass.

`torch.ops.sparcom.act_mul_count` is registered with `torch.library.Library`, not `custom_op`: it is
the same operator with less Python per call, and a decode step makes a call at every layer. The
checks run inside the operator, so that tracing sees one call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from sparcom import native
from sparcom.counting.activations import parse_activation
from sparcom.errors import InputError

NAME = "act_mul_count"
SIGNALS = {"gate": 0, "product": 1}
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}

# All positional: keyword arguments cost the dispatcher 4 us more.
INPUTS = (
    "Tensor gate, Tensor? up, Tensor bins, Tensor(a!) counts, Tensor(b!) rows, "
    "str activation, float threshold, str signal, Tensor? keep, Tensor? fill, Tensor? expert, "
    "Tensor(d!)? signs"
)
TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
_library = torch.library.Library("sparcom", "FRAGMENT")
_library.define(f"act_mul_count({INPUTS}, bool striped=False) -> Tensor", tags=TAGS)
_library.define(f"act_mul_count.out({INPUTS}, Tensor(c!) out, bool striped=False) -> ()", tags=TAGS)
TENSORS = 12  # of INPUTS: gate to signs


def act_mul_count(
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
    out: Tensor | None = None,
    striped: bool = False,
) -> Tensor:
    """Apply an FFN activation and count, per bin, how often each neuron fires.

        h[r, :]            = round(f(gate[r, :])) * u(up[r, :])        (u: mostly up itself)
        out[r, :]          = h[r, :] * keep[expert[r], :] + fill[expert[r], :]
        counts[bins[r], :] += f(gate[r, :]) > threshold        (signal "product": h > threshold)
        rows[bins[r]]      += 1                                 (bins[r] == -1: not counted)
        signs[0, bins[r], :] += up[r, :] > 0
        signs[1, bins[r], :] += gate[r, :] > 0 and up[r, :] > 0

    gate: [n, width] float32, bfloat16 or float16; unit stride along a row, any stride between rows.
    up: as gate (they may be halves of one tensor), or None: h = round(f(gate)). Or gate and up take
        turns in a tensor x: gate = x[:, ::2] and up = x[:, 1::2].
    bins: [n] int32, the row of `counts` that each row of gate adds to, or -1.
    counts: [bins, width] int32, contiguous; added to.
    rows: [bins] int32, contiguous; added to.
    activation: a name of `activations`, with its parameters; u is up for those without.
    threshold: what f must exceed. For signal "gate" the exact real-valued f of the gate decides,
        never a rounded one; with 0 this is gate > 0. For "product" the computed h decides, before
        keep and fill. NaN never counts.
    keep, fill: [experts, width] in gate's dtype, contiguous: ablate neurons, in every row.
    expert: [n] int32, the row of keep and fill for each row of gate; None: all 0.
    signs: [2, bins, width] int32, contiguous; added to. None: not counted, at no cost. It needs up,
        signal "gate" and threshold 0. The sign is that of up itself, before u shapes it; NaN has
        none. With `counts` and `rows`, the four combinations of signs follow.
    out: [n, width] in gate's dtype, contiguous, to write to; None: a new tensor.
    striped: counts and signs have their columns at the places of `layout.places`, where CUDA adds
        to them in an eighth of the requests to memory. Every call that adds to them must say so,
        and `layout.in_order` reads them. Only on CUDA.

    Returns out. Raises InputError before anything is written. On CUDA a bin out of range cannot be
    reported without waiting for the device: its row is not counted, and `rows` shows it. Counting
    follows LAPE (arXiv 2402.16438).

    >>> counts, rows = torch.zeros(2, 4, dtype=torch.int32), torch.zeros(2, dtype=torch.int32)
    >>> bins = torch.tensor([0, 1, -1], dtype=torch.int32)
    >>> h = act_mul_count(torch.randn(3, 4), torch.randn(3, 4), bins, counts, rows)
    """
    if out is None:
        return torch.ops.sparcom.act_mul_count.default(
            gate, up, bins, counts, rows, activation, threshold, signal, keep, fill, expert, signs,
            striped,
        )  # fmt: skip
    torch.ops.sparcom.act_mul_count.out(
        gate, up, bins, counts, rows, activation, threshold, signal, keep, fill, expert, signs, out,
        striped,
    )  # fmt: skip
    return out


def _fake(
    gate: Tensor, up: Tensor | None, bins: Tensor, counts: Tensor, rows: Tensor, activation: str,
    threshold: float, signal: str, keep: Tensor | None, fill: Tensor | None, expert: Tensor | None,
    signs: Tensor | None, striped: bool = False,
) -> Tensor:  # fmt: skip
    check_inputs(
        gate, up, bins, counts, rows, activation, threshold, signal, keep, fill, expert, signs
    )
    return torch.empty_like(gate, memory_format=torch.contiguous_format)


def _fake_out(
    gate: Tensor, up: Tensor | None, bins: Tensor, counts: Tensor, rows: Tensor, activation: str,
    threshold: float, signal: str, keep: Tensor | None, fill: Tensor | None, expert: Tensor | None,
    signs: Tensor | None, out: Tensor, striped: bool = False,
) -> None:  # fmt: skip
    check_inputs(
        gate, up, bins, counts, rows, activation, threshold, signal, keep, fill, expert, signs
    )
    check_tensor("out", out, gate.dtype, gate, gate.shape)


def _cpu(gate: Tensor, *inputs: Any) -> Tensor:
    out = _fake(gate, *inputs)
    _launch_cpu(gate, *inputs[: TENSORS - 1], out, *inputs[TENSORS - 1 :])
    return out


def _cpu_out(*inputs: Any) -> None:
    _fake_out(*inputs)
    _launch_cpu(*inputs)


def _cuda(gate: Tensor, *inputs: Any) -> Tensor:
    out = _fake(gate, *inputs)
    _launch_cuda(gate, *inputs[: TENSORS - 1], out, *inputs[TENSORS - 1 :])
    return out


def _cuda_out(*inputs: Any) -> None:
    _fake_out(*inputs)
    _launch_cuda(*inputs)


def _launch_cpu(*inputs: Any) -> None:
    *tensors, striped = inputs if len(inputs) > TENSORS + 1 else (*inputs, False)
    if striped:
        raise InputError("act_mul_count: striped counts are for CUDA; on CPU, leave striped False")
    launch(native.cpu().act_mul_count, (), *tensors)


def _launch_cuda(*inputs: Any) -> None:
    """Queue the kernel on the current stream of gate's device, as torch does with its own."""
    *tensors, striped = inputs if len(inputs) > TENSORS + 1 else (*inputs, False)
    kernel, device = native.cuda().act_mul_count, tensors[0].device
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream().cuda_stream
        launch(kernel, (device.index, stream, striped, native.pdl()), *tensors)


def launch(
    kernel: Callable[..., object], where: tuple[int, ...], gate: Tensor, up: Tensor | None,
    bins: Tensor, counts: Tensor, rows: Tensor, activation: str, threshold: float, signal: str,
    keep: Tensor | None, fill: Tensor | None, expert: Tensor | None, signs: Tensor | None,
    out: Tensor,
) -> None:  # fmt: skip
    """Call a kernel with the numbers of csrc/bindings/call.h, in its order, and with `where`."""
    tables = fill if keep is None else keep
    try:
        kernel(
            gate.data_ptr(),
            0 if up is None else up.data_ptr(),
            out.data_ptr(),
            bins.data_ptr(),
            counts.data_ptr(),
            rows.data_ptr(),
            0 if signs is None else signs.data_ptr(),
            0 if keep is None else keep.data_ptr(),
            0 if fill is None else fill.data_ptr(),
            0 if expert is None else expert.data_ptr(),
            gate.shape[0],
            gate.shape[1],
            gate.stride(0),
            0 if up is None else up.stride(0),
            2 if _take_turns(gate, up) else 1,
            rows.shape[0],
            0 if tables is None else tables.shape[0],
            DTYPES[gate.dtype],
            *parse_activation(activation).numbers,
            SIGNALS[signal],
            threshold,
            *where,
        )
    except ValueError as error:
        raise InputError(str(error)) from None


_library.impl("act_mul_count", _cpu, "CPU")
_library.impl("act_mul_count.out", _cpu_out, "CPU")
_library.impl("act_mul_count", _cuda, "CUDA")
_library.impl("act_mul_count.out", _cuda_out, "CUDA")
torch.library.register_fake("sparcom::act_mul_count", _fake, lib=_library)
torch.library.register_fake("sparcom::act_mul_count.out", _fake_out, lib=_library)


# --- checks ---------------------------------------------------------------------------------------


def check_inputs(
    gate: Tensor, up: Tensor | None, bins: Tensor, counts: Tensor, rows: Tensor, activation: str,
    threshold: float, signal: str, keep: Tensor | None, fill: Tensor | None, expert: Tensor | None,
    signs: Tensor | None, name: str = NAME,
) -> None:  # fmt: skip
    """Check names, dtypes, shapes, strides and devices; the kernel checks memory and indices.

    name: of the operator, for its errors.
    """
    if signal not in SIGNALS:
        raise InputError(f"{name}: signal must be one of {', '.join(SIGNALS)}, got {signal!r}")
    parse_activation(activation)
    turns = _take_turns(gate, up)
    if gate.dim() != 2 or gate.dtype not in DTYPES or not (_rows_are_dense(gate) or turns):
        fail("gate", "[rows, width] float32, bfloat16 or float16 with unit stride", gate, name)
    n, width = gate.shape
    if up is not None and not (
        up.dtype is gate.dtype
        and up.shape == gate.shape
        and up.device == gate.device
        and (_rows_are_dense(up) or turns)
    ):
        fail(
            "up", f"[{n}, {width}] {_name(gate.dtype)} with unit stride on {gate.device}", up, name
        )
    check_tensor("bins", bins, torch.int32, gate, (n,), name)
    if rows.dim() != 1:
        fail("rows", "[bins] int32", rows, name)
    check_tensor("rows", rows, torch.int32, gate, rows.shape, name)
    check_tensor("counts", counts, torch.int32, gate, (rows.shape[0], width), name)
    if signs is not None:
        check_signs(up is not None, threshold, signal)
        check_tensor("signs", signs, torch.int32, gate, (2, rows.shape[0], width), name)
    tables = fill if keep is None else keep
    if tables is None:
        if expert is not None:
            fail("expert", "None without keep and fill", expert, name)
        return
    first = "fill" if keep is None else "keep"
    if tables.dim() != 2:
        fail(first, f"[experts, {width}]", tables, name)
    for what, value in (("keep", keep), ("fill", fill)):
        if value is not None:
            check_tensor(what, value, gate.dtype, gate, (tables.shape[0], width), name)
    if expert is not None:
        check_tensor("expert", expert, torch.int32, gate, (n,), name)
    elif tables.shape[0] == 0 and n:
        fail(first, "[experts, width] with at least one expert", tables, name)


def check_signs(gated: bool, threshold: float, signal: str) -> None:
    """Raise InputError if the signs of gate and up are not defined: see `signs` above."""
    if not gated:
        raise InputError("signs: the FFN has no up projection, so that only the gate has a sign")
    if threshold != 0 or signal != "gate":
        raise InputError(
            'signs: the threshold must be 0 and the signal "gate", got '
            f"{threshold:g} and {signal!r}"
        )


def _rows_are_dense(x: Tensor) -> bool:
    return x.stride(1) == 1 or x.shape[1] <= 1 or x.shape[0] == 0


def _take_turns(gate: Tensor, up: Tensor | None) -> bool:
    """True for gate = x[:, ::2] and up = x[:, 1::2]; the kernel checks that x is one tensor."""
    return (
        up is not None
        and gate.dim() == 2
        and gate.stride(1) == 2
        and gate.shape[1] > 1
        and up.stride() == gate.stride()
        and up.storage_offset() == gate.storage_offset() + 1
    )


def check_tensor(
    what: str, x: Tensor, dtype: torch.dtype, gate: Tensor, shape: tuple[int, ...], name: str = NAME
) -> None:
    """Raise InputError if x is not a contiguous tensor of this shape beside gate."""
    if x.dtype is not dtype or x.shape != shape or not x.is_contiguous() or x.device != gate.device:
        expected = f"{list(shape)} {_name(dtype)}, contiguous, on {gate.device}"
        fail(what, expected, x, name)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def fail(what: str, expected: str, x: Tensor, name: str = NAME) -> NoReturn:
    """Raise InputError: what was expected of a tensor, and what came."""
    raise InputError(
        f"{name}: {what} must be {expected}; got {list(x.shape)} {_name(x.dtype)} with "
        f"strides {list(x.stride())} on {x.device}"
    )
