"""The activation of gated FFNs that no activation module names, found by what their code computes.

Some clamp or scale: they keep a limit as an attribute and the formula in their code. Others call a
function instead of a module. So their code is called on a few numbers, and the formula that gives
the same is their activation. No weight is needed.
"""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from sparcom.counting import reference
from sparcom.counting.activations import PLAIN, name_activation, parse_activation
from sparcom.errors import InputError

_LIMITS = ("limit", "swiglu_limit")
_ALPHAS = ("alpha", "swiglu_alpha")
_CLOSE = 1e-6  # relative: parameters are kept in float32


def has_limit(module: nn.Module) -> bool:
    """True if a module clamps: it has a limit that is finite."""
    return _number(module, _LIMITS) < math.inf


def gating_of_experts(module: Any, plain: str | None) -> str:
    """The activation of a module of fused experts, by its `_apply_gate`.

    plain: name of the f of its activation module; None if it has none that is known.
    Raises InputError if no known formula gives the same.
    """

    def compute(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        if module.is_concatenated:
            return module._apply_gate(torch.cat([gate, up], -1))
        return module._apply_gate(torch.stack([gate, up], -1).flatten(-2))

    return _find(module, plain, compute)


def gating_of_mlp(module: nn.Module, plain: str | None, parts: tuple[str, ...]) -> str:
    """The activation of a gated MLP, by its forward with projections that hand numbers through.

    parts: names of gate, up and down, or of both together and down.
    Raises InputError if no known formula gives the same.
    """

    def compute(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        given = [torch.cat([gate, up], -1)] if len(parts) == 2 else [gate, up]
        twin = copy.copy(module)
        outputs = (*(_Constant(x) for x in given), nn.Identity())
        twin._modules = {**module._modules, **dict(zip(parts, outputs, strict=True))}
        return type(module).forward(twin, gate)

    return _find(module, plain, compute)


class _Constant(nn.Module):
    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.value


def _find(
    module: nn.Module,
    plain: str | None,
    compute: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> str:
    far = 3 * min(max(_number(module, _LIMITS), 4.0), 100.0)
    gate = torch.linspace(-far, far, 97, dtype=torch.float64)[None]
    up = torch.linspace(far, -far, 97, dtype=torch.float64).roll(31)[None]
    h = compute(gate, up)
    for name in _candidates(module, plain):
        expected = reference.activate(name, gate) * reference.shape_up(parse_activation(name), up)
        if h.shape == expected.shape and torch.allclose(h, expected, rtol=_CLOSE, atol=1e-12):
            return name
    raise InputError("its gating is none that is known")


def _candidates(module: nn.Module, plain: str | None) -> Iterator[str]:
    yield from PLAIN if plain is None else (plain,)
    limit, alpha = _number(module, _LIMITS), _number(module, _ALPHAS)
    if limit == math.inf:
        return
    for beta in (0.0, 1.0):
        for scale in (1.0, alpha) if alpha < math.inf else (1.0,):
            yield name_activation("swiglu", limit=limit, alpha=scale, beta=beta)
    yield name_activation("swiglu_step", limit=limit)


def _number(module: nn.Module, names: tuple[str, ...]) -> float:
    """The first of these attributes that is a number; infinity if there is none."""
    found = (getattr(module, name, None) for name in names)
    return next((float(v) for v in found if isinstance(v, (int, float))), math.inf)
