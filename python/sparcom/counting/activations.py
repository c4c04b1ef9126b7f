"""The activation functions that are counted, by the names that sites and calls use.

    silu, gelu, gelu_tanh, relu, relu2
    swiglu(limit=7,alpha=1.702,beta=1)    y / (1 + e^(-alpha y)), y = min(gate, limit);
                                          up: clamp(up) + beta
    swiglu_step(limit=7)                  min(silu(gate), limit);                up: clamp(up)
    situ(beta=1,linear_beta=2)            beta tanh(gate / beta) / (1 + e^-gate);
                                          up: linear_beta tanh(up / linear_beta)

clamp(up) = max(-limit, min(limit, up)). Parameters that are left out have their defaults: no limit,
alpha 1, beta 0 (of situ: 1), up as it is. All keep the sign of the gate.
"""

import functools
import math
from dataclasses import dataclass, field

import numpy as np

from sparcom.errors import InputError

PLAIN = ("silu", "gelu", "gelu_tanh", "relu", "relu2")
"""Those without parameters."""
_SHAPED = {
    "swiglu": {"limit": math.inf, "alpha": 1.0, "beta": 0.0},
    "swiglu_step": {"limit": math.inf},
    "situ": {"beta": 1.0, "linear_beta": 0.0},
}
_POSITIVE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(PLAIN, ()),
    "swiglu": ("limit", "alpha"),
    "swiglu_step": ("limit",),
    "situ": ("beta",),
}
ACTIVATIONS = (*PLAIN, *_SHAPED)
"""Names without parameters; a name's place is its code in csrc/act_mul_count.h."""


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation function f, and what becomes of up.

    name: without parameters. code: of csrc/act_mul_count.h.
    limit, alpha, beta, linear_beta: the parameters, each a float32 value.
    """

    name: str
    code: int
    limit: float = math.inf
    alpha: float = 1.0
    beta: float = 0.0
    linear_beta: float = 0.0
    numbers: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        numbers = self.code, self.limit, self.alpha, self.beta, self.linear_beta
        object.__setattr__(self, "numbers", numbers)

    @property
    def shapes_up(self) -> bool:
        """True if up is changed before the product, so that there must be one."""
        return self.name in _SHAPED


@functools.cache
def parse_activation(text: str) -> Activation:
    """The activation of a name; raises InputError naming what is known.

    >>> parse_activation("swiglu(limit=7,alpha=1.702,beta=1)").limit
    7.0
    """
    name, bracket, rest = text.partition("(")
    if name not in ACTIVATIONS or (bracket and name in PLAIN):
        raise InputError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {text!r}")
    defaults = _SHAPED.get(name, {})
    try:
        given = _parameters(rest.removesuffix(")")) if bracket else {}
        if not (text.endswith(")") or not bracket) or not given.keys() <= defaults.keys():
            raise ValueError
        values = defaults | given
        if any(values[key] <= 0 for key in _POSITIVE[name]) or math.isnan(sum(values.values())):
            raise ValueError
    except ValueError:
        form = ",".join(f"{key}=NUMBER" for key in defaults)
        raise InputError(
            f"activation {text!r}: expected {name}({form}) with {' and '.join(_POSITIVE[name])} "
            "above 0"
        ) from None
    return Activation(name, ACTIVATIONS.index(name), **values)


def _parameters(text: str) -> dict[str, float]:
    """key -> float32 value of "key=number,...". Raises ValueError if it is not of that form."""
    pairs = (part.split("=") for part in text.split(",")) if text else ()
    return {key: float(np.float32(value)) for key, value in pairs}


def name_activation(name: str, **parameters: float) -> str:
    """The name of an activation with parameters; those that are the default are left out.

    >>> name_activation("swiglu", limit=7.0, alpha=1.702, beta=1.0)
    'swiglu(limit=7,alpha=1.702,beta=1)'
    """
    defaults = _SHAPED[name]
    values = {key: parameters.get(key, default) for key, default in defaults.items()}
    said = [f"{key}={values[key]:.9g}" for key in defaults if values[key] != defaults[key]]
    return f"{name}({','.join(said)})" if said else name
