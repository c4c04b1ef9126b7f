"""How components are ablated: the words of `--how`."""

import math
from dataclasses import dataclass

from sparcom.counting.signs import GATE_SIGNS
from sparcom.errors import InputError

HOW = ("zero", "mean", "scale", "negative", "positive", "resample", "route", "boost")
"""The kinds of ablation; the last two are of experts, in routing."""
NO_RESAMPLE = (
    "ablate: how resample: on vLLM tokens cannot be told to take another instruction's; use the "
    "transformers engine"
)
_ENGINES = ("transformers", "vllm")
_DOSES = ("scale", "boost")


@dataclass(frozen=True)
class How:
    """One way to ablate.

    name: as it is shown: "zero", "mean", "route", "scale:0.5", "boost:2".
    kind: one of `HOW`.
    factor: what h is multiplied by; None if nothing is.
    sign: -1 or 1: h becomes 0 only where the gate has this sign; 0: the sign does not matter.
    shift: what is added to an expert's logit in its router, -inf for "route"; None if nothing is.
    """

    name: str
    kind: str
    factor: float | None = None
    sign: int = 0
    shift: float | None = None

    @property
    def amplifies(self) -> bool:
        """True if the components do more: the loss may then rise or fall, and both are tested."""
        return (self.factor or 0) > 1 or (self.shift or 0) > 0


def parse_how(text: str, engine: str = "transformers") -> tuple[How, ...]:
    """The ways that a word names: one, or a dose for each number of `scale:X,Y,...` or `boost:...`.

    Raises InputError for a word or an engine that is not known, a way that the engine does not
    offer, and a dose that is no number or comes twice.

    >>> [how.factor for how in parse_how("scale:0,0.5,2")]
    [0.0, 0.5, 2.0]
    """
    if engine not in _ENGINES:
        raise InputError(f"ablate: engine: expected {', '.join(_ENGINES)}, got {engine!r}")
    kind, colon, rest = text.partition(":")
    if kind not in HOW or (kind in _DOSES) != bool(colon):
        shown = ", ".join(f"{name}:X[,Y...]" if name in _DOSES else name for name in HOW)
        raise InputError(f"ablate: how: expected {shown}, got {text!r}")
    if kind == "resample" and engine == "vllm":
        raise InputError(NO_RESAMPLE)
    if kind == "zero":
        return (How(text, kind, factor=0.0),)
    if kind == "route":
        return (How(text, kind, shift=-math.inf),)
    if kind not in _DOSES:
        return (How(text, kind, sign=GATE_SIGNS.get(kind, 0)),)
    doses = [_number(part, text) for part in rest.split(",")]
    if len(set(doses)) < len(doses):
        raise InputError(f"ablate: how: a number comes twice in {text!r}")
    if kind == "scale":
        return tuple(How(f"{kind}:{dose:g}", kind, factor=dose) for dose in doses)
    return tuple(How(f"{kind}:{dose:g}", kind, shift=dose) for dose in doses)


def _number(part: str, text: str) -> float:
    try:
        dose = float(part)
    except ValueError:
        dose = math.nan
    if not math.isfinite(dose):
        raise InputError(f"ablate: how: expected numbers as in scale:0,0.5,2, got {text!r}")
    return float(f"{dose:g}")  # the name says exactly what is done
