"""act_mul_count and its quantisation in plain torch, on any device: the kernels are compared with
them.

Every op is written out and every cast is explicit. f is computed in double precision and rounded
once, so this is the correctly rounded f, not torch's own float32 formula.
"""

import math

import torch
from torch import Tensor

from sparcom.counting.activations import Activation, parse_activation


def silu(x: Tensor) -> Tensor:
    """x / (1 + e^-x)."""
    return x / (1 + torch.exp(-x))


def gelu(x: Tensor) -> Tensor:
    """x Phi(x), by erfc, which is accurate in the tail."""
    return 0.5 * x * torch.special.erfc(-x * math.sqrt(0.5))


def gelu_tanh(x: Tensor) -> Tensor:
    """x (1 + tanh u) / 2 = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3)."""
    return x / (1 + torch.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return torch.relu(x)


def relu2(x: Tensor) -> Tensor:
    """max(x, 0)^2."""
    return torch.relu(x) ** 2


_PLAIN = {"silu": silu, "gelu": gelu, "gelu_tanh": gelu_tanh, "relu": relu, "relu2": relu2}


def activate(activation: str, gate: Tensor) -> Tensor:
    """f(gate) in double precision."""
    c, x = parse_activation(activation), gate.double()
    if c.name == "swiglu":
        y = x.clamp(max=c.limit)
        return y / (1 + torch.exp(-c.alpha * y))
    if c.name == "swiglu_step":
        return silu(x).clamp(max=c.limit)
    if c.name == "situ":
        return c.beta * torch.tanh(x / c.beta) / (1 + torch.exp(-x))
    return _PLAIN[c.name](x)


def shape_up(c: Activation, up: Tensor) -> Tensor:
    """u(up), computed in double precision and rounded to the dtype of up."""
    x = up.double()
    if c.name == "situ":
        x = c.linear_beta * torch.tanh(x / c.linear_beta) if c.linear_beta > 0 else x
    elif c.shapes_up:
        x = x.clamp(-c.limit, c.limit) + c.beta
    return x.to(up.dtype)


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
) -> Tensor:
    """h * keep + fill, h = round(f(gate)) * u(up); counts, rows, signs grow: ops.act_mul_count."""
    exact = activate(activation, gate)
    value = exact.to(gate.dtype)
    h = value if up is None else value * shape_up(parse_activation(activation), up)
    count(exact if signal == "gate" else h.double(), threshold, bins, counts, rows)
    if signs is not None and up is not None:
        count_signs(gate, up, bins, signs)
    row = torch.zeros_like(bins) if expert is None else expert
    out = h if keep is None else h * keep[row.long()]
    return out if fill is None else out + fill[row.long()]


def count(value: Tensor, threshold: float, bins: Tensor, counts: Tensor, rows: Tensor) -> None:
    """counts[bins[r], :] += value[r, :] > threshold; rows[bins[r]] += 1; bins -1: not counted."""
    at = (bins >= 0).nonzero().flatten()
    bin_of_row = bins[at].long()
    counts.index_add_(0, bin_of_row, (value[at] > threshold).to(counts.dtype))
    rows.index_add_(0, bin_of_row, torch.ones_like(bins[at]).to(rows.dtype))


def count_signs(gate: Tensor, up: Tensor, bins: Tensor, signs: Tensor) -> None:
    """signs[0, bins[r], :] += up[r, :] > 0; signs[1, bins[r], :] += both gate and up > 0."""
    at = (bins >= 0).nonzero().flatten()
    positive = torch.stack([up[at] > 0, (gate[at] > 0) & (up[at] > 0)])
    signs.index_add_(1, bins[at].long(), positive.to(signs.dtype))


GROUP = 128  # columns to a scale


def quantise(h: Tensor, dtype: torch.dtype, *, ue8m0: bool = False) -> tuple[Tensor, Tensor]:
    """(q [n, width], scales [n, width / 128] float32) of h: `quant_ops.act_mul_count_quant`."""
    largest = torch.tensor(127 if dtype is torch.int8 else torch.finfo(dtype).max, device=h.device)
    groups = h.float().unflatten(1, (-1, GROUP))
    scales = groups.abs().amax(2).clamp(min=1e-10) / largest.float().expand(groups.shape[:2])
    if ue8m0:
        scales = torch.where(scales.isfinite(), next_power_of_2(scales.clamp(min=1e-10)), scales)
    exact = (groups / scales[..., None]).flatten(1)
    if dtype is torch.int8:
        return exact.round().nan_to_num(nan=0.0).clamp(-127, 127).to(dtype), scales
    return exact.clamp(-largest, largest).to(dtype), scales


def next_power_of_2(x: Tensor) -> Tensor:
    """The least power of two that is at least x: [...] positive normal float32."""
    last_place, exponents = 2**23 - 1, 0xFF << 23
    return ((x.view(torch.int32) + last_place) & exponents).view(torch.float32)
