"""Cases of act_mul_count_quant for every backend, and what must hold for them.

The quantisation is compared with plain NumPy, written from the definition of the formats.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from kernel_cases import ACTIVATIONS, GUARD, Case, ablations, bins_of, draw
from torch import Tensor

from sparcom.counting import reference

FP8 = torch.float8_e4m3fn
FORMATS = (FP8, torch.int8)
HALVES = (torch.bfloat16, torch.float16)
POISON = 0x5B  # of bytes that must stay as they are


@dataclass(frozen=True)
class QuantCase:
    """One call. plain: its inputs; `expert` in its options may name padding, with or without
    tables. dtype: of q. ue8m0: scales are powers of two. layout: of the scales."""

    plain: Case
    dtype: torch.dtype
    ue8m0: bool = False
    layout: str = "rows"

    def to(self, device: str) -> "QuantCase":
        """The case on a device."""
        return replace(self, plain=self.plain.to(device))


# --- the definition -------------------------------------------------------------------------------


def fp8_values() -> np.ndarray:
    """[127] float64: the numbers of the codes 0x00 to 0x7e; 0x7f is NaN."""
    code = np.arange(0x7F)
    exponent, fraction = code >> 3, code & 7
    return np.where(
        exponent == 0, fraction / 8 * 2.0**-6, (1 + fraction / 8) * 2.0 ** (exponent - 7.0)
    )


def fp8_codes(x: np.ndarray) -> np.ndarray:
    """uint8 codes of numbers, to nearest, of two equally near ones the even; NaN is 0x7f."""
    values = fp8_values()
    middles = (values[1:] + values[:-1]) / 2  # exact in float64
    size = np.abs(np.asarray(x, np.float64))
    near = np.searchsorted(middles, size)  # in the middle: the lower one
    at_middle = (near < len(middles)) & (middles[np.minimum(near, len(middles) - 1)] == size)
    near = np.where(at_middle & (near % 2 == 1), near + 1, near)
    near = np.where(np.isnan(size), 0x7F, near)
    return (near | np.where(np.signbit(x), 0x80, 0)).astype(np.uint8)


def quantised(h: np.ndarray, dtype: torch.dtype, ue8m0: bool) -> tuple[np.ndarray, np.ndarray]:
    """(codes [n, width] uint8 or int8, scales [n, width / 128] float32)."""
    largest = np.float32(448 if dtype is FP8 else 127)
    groups = h.astype(np.float32).reshape(len(h), h.shape[1] // 128, 128)
    with np.errstate(all="ignore"):
        scales = np.maximum(np.float32(1e-10), np.abs(groups).max(2)) / largest
        if ue8m0:
            mantissa, exponent = np.frexp(np.maximum(scales, np.float32(1e-10)))
            powers = np.ldexp(np.float32(1), exponent - (mantissa == 0.5))
            scales = np.where(np.isfinite(scales), powers, scales)
        exact = (groups / scales[..., None]).reshape(h.shape)
        if dtype is FP8:
            return fp8_codes(exact), scales
        return np.where(np.isnan(exact), 0, np.rint(exact)).astype(np.int8), scales


def same_codes(found: Tensor, expected: np.ndarray) -> bool:
    """True if q holds these codes; NaN of fp8 has either sign."""
    ours = found.cpu().contiguous().view(torch.uint8).numpy()
    codes = expected.view(np.uint8)
    if found.dtype is FP8:
        ours, codes = (np.where(x & 0x7F == 0x7F, 0x7F, x) for x in (ours, codes))
    return np.array_equal(ours, codes)


def every_pair(half: torch.dtype, apart: int) -> Tensor:
    """[n, 128]: every significand, 2^-apart times as large as the first number of its row, which
    has every significand, too, and is the largest. Signs alternate."""
    digits = 8 if half is torch.bfloat16 else 11
    every = torch.arange(2 ** (digits - 1), 2**digits) / 2.0 ** (digits - 1)
    parts = torch.cat([every, every[-1:].expand(-len(every) % 127)]).view(-1, 127)
    rows = torch.empty(len(every), len(parts), 128)
    rows[..., 0] = every[:, None] * 2.0**10
    rows[..., 1:] = parts * 2.0 ** (10 - apart)
    rows[..., 1::2] *= -1
    return rows.flatten(0, 1).to(half)


def edges(half: torch.dtype) -> Tensor:
    """[n, 128]: zeros of both signs, subnormals, small and large numbers, infinities and NaN."""
    tiny, info = (
        torch.zeros((), dtype=half).nextafter(torch.ones((), dtype=half)),
        torch.finfo(half),
    )
    rows = [
        [0.0, -0.0],
        [float(tiny), -float(tiny), 0.0],
        [info.tiny, -info.tiny, float(tiny)],
        [1e-10, 1e-11, -1e-9, 1e-12],
        [info.max, -info.max, 1.0, float(tiny)],
        [float("inf"), 1.0, -2.0, 0.0],
        [float("-inf"), float("inf"), info.max, -1.0],
        [float("nan"), 1.0, 0.0],
        [float("nan"), float("inf"), -3.0],
        [448.0, 447.0, 464.0, -232.0],
        [1.75, 1.0, 0.875],
    ]
    h = torch.stack([torch.tensor(row).repeat(128)[:128] for row in rows])
    return h.to(half)


# --- a call and what must hold --------------------------------------------------------------------


def check(call: Callable[..., object], plain: Callable[..., Tensor], case: QuantCase) -> None:
    """Call a kernel and check all that it writes.

    call: with q and scales behind the inputs of act_mul_count. plain: act_mul_count of the same
    backend, whose h this must quantise.
    """
    c = case.plain
    n, width = c.gate.shape
    device = c.gate.device
    expert = c.options.get("expert")
    tables = [c.options[name] for name in ("keep", "fill") if name in c.options]
    real = torch.ones(n, dtype=torch.bool) if expert is None else (expert >= 0).cpu()
    known = real.clone()
    if tables and expert is not None:
        known &= (expert < len(tables[0])).cpu()
    bins = c.bins.cpu()
    counted = torch.where(known & (bins >= 0) & (bins < c.n_bins), bins, -1)

    counts, seen = (
        torch.zeros(s, dtype=torch.int32, device=device) for s in ((c.n_bins, width), (c.n_bins,))
    )
    signs = torch.zeros(2, *counts.shape, dtype=torch.int32, device=device) if c.signs else None
    q_bytes = torch.full((n * width + 2 * GUARD,), POISON, dtype=torch.uint8, device=device)
    q = q_bytes[GUARD : GUARD + n * width].view(case.dtype).view(n, width)
    scales, scale_words = poisoned_scales(n, width // 128, case.layout, device)
    call(c.gate, c.up, c.bins, counts, seen, q, scales, signs=signs, ue8m0=case.ue8m0, **c.options)

    options = {name: value for name, value in c.options.items() if name != "expert"}
    if tables and expert is not None:
        options["expert"] = expert.clamp(min=0)
    h = plain(c.gate, c.up, c.bins.new_full((n,), -1), *_unused(c), **options).cpu()
    codes, expected = quantised(h[real].float().numpy(), case.dtype, case.ue8m0)
    assert same_codes(q.cpu()[real], codes)
    found = scales.cpu()[real].numpy()
    assert np.array_equal(found, expected, equal_nan=True)

    written = torch.zeros(len(q_bytes), dtype=torch.bool)
    written[GUARD : GUARD + n * width] = real.repeat_interleave(width)
    assert bool((q_bytes.cpu()[~written] == POISON).all()), "q is written elsewhere"
    place = torch.arange(len(scale_words)).as_strided(
        scales.shape, scales.stride(), scales.storage_offset()
    )
    others = torch.ones(len(scale_words), dtype=torch.bool)
    others[place[real].flatten()] = False
    assert bool((scale_words.cpu()[others] == -77).all()), "scales are written elsewhere"

    exact = reference.activate(c.options.get("activation", "silu"), c.gate.cpu())
    value = exact if c.options.get("signal", "gate") == "gate" else _before_ablation(c, plain)
    plain_counts, plain_rows = torch.zeros_like(counts.cpu()), torch.zeros_like(seen.cpu())
    reference.count(value, c.options.get("threshold", 0.0), counted, plain_counts, plain_rows)
    assert torch.equal(counts.cpu(), plain_counts)
    assert torch.equal(seen.cpu(), plain_rows)
    if signs is not None:
        for at in range(c.n_bins):
            gate, up = (x.cpu()[counted == at] > 0 for x in (c.gate, c.up))
            assert signs[0, at].tolist() == up.sum(0).tolist()
            assert signs[1, at].tolist() == (gate & up).sum(0).tolist()


def _unused(c: Case) -> tuple[Tensor, Tensor]:
    """Counts and rows that no row is counted in."""
    shapes = (1, c.gate.shape[1]), (1,)
    return tuple(torch.zeros(s, dtype=torch.int32, device=c.gate.device) for s in shapes)


def _before_ablation(c: Case, plain: Callable[..., Tensor]) -> Tensor:
    options = {k: v for k, v in c.options.items() if k not in ("keep", "fill", "expert")}
    bins = c.bins.new_full((len(c.bins),), -1)
    return plain(c.gate, c.up, bins, *_unused(c), **options).cpu().double()


def poisoned_scales(n: int, groups: int, layout: str, device: object) -> tuple[Tensor, Tensor]:
    """(scales [n, groups] in a layout, all the words that they lie in)."""
    rows = (n + 3) // 4 * 4 if layout == "padded" else n  # DeepGEMM's columns: 16 bytes each
    strides = (groups, 1) if layout == "rows" else (1, rows)
    size = n * groups if layout == "rows" else rows * groups
    words = torch.full((size + 2 * GUARD,), -77.0, device=device)
    return words.as_strided((n, groups), strides, GUARD), words


@st.composite
def quant_cases(draws: st.DrawFn, *, padding_in_tables: bool = True) -> QuantCase:
    """Any shape, option and layout, any bins; rows aligned to 16 bytes. padding_in_tables: also
    experts out of range of keep and fill, which a CPU reports."""
    rows, width = draws(st.integers(0, 24)), 128 * draws(st.integers(1, 3))
    half = draws(st.sampled_from(HALVES))
    seed, scale = draws(st.integers(0, 10**6)), draws(st.sampled_from([3.0, 3.0, 1e-4, 300.0]))
    both = draw(rows, 2 * width + draws(st.sampled_from([0, 8])), half, seed, scale)
    gate, up = both[:, :width], both[:, width : 2 * width]
    options: dict[str, Any] = {
        "activation": draws(st.sampled_from(["silu", "silu", "silu", *ACTIVATIONS])),
        "threshold": draws(st.sampled_from([0.0, 0.0, 0.3, -0.05])),
        "signal": draws(st.sampled_from(["gate", "gate", "product"])),
    }
    gated = draws(st.integers(0, 4)) > 0
    if gated and "(" in options["activation"] and draws(st.booleans()):
        gate, up = both[:, : 2 * width : 2], both[:, 1 : 2 * width : 2]
    last = 3
    if draws(st.integers(0, 3)) == 0:
        options |= draws(ablations(rows, width, half, seed))
        tables = options.get("keep", options.get("fill"))
        last = len(tables) - (not padding_in_tables)
        options.pop("expert", None)
    if draws(st.booleans()):  # grouped by expert, each group padded
        experts = draws(st.lists(st.integers(-1, last), min_size=rows, max_size=rows))
        options["expert"] = torch.tensor(experts, dtype=torch.int32)
    n_bins = draws(st.integers(0, 4))
    signs = gated and draws(st.booleans())
    if signs:
        options |= {"threshold": 0.0, "signal": "gate"}
    return QuantCase(
        Case(gate, up if gated else None, draws(bins_of(rows, n_bins)), n_bins, options, signs),
        draws(st.sampled_from(FORMATS)),
        draws(st.booleans()),
        draws(st.sampled_from(["rows", "columns", "padded"])),
    )
