"""How components are ablated: the words of `--how`."""

import math
from dataclasses import dataclass

from sparcom.errors import InputError

HOW = {
    "transformers": ("zero", "mean", "scale", "route"),
    "vllm": ("zero", "mean", "scale"),
}
"""The kinds of ablation of each engine."""


@dataclass(frozen=True)
class How:
    """One way to ablate.

    name: as it is shown: "zero", "mean", "route", "scale:0.5".
    kind: one of `HOW`.
    factor: what h is multiplied by; None if nothing is ("mean", "route").
    """

    name: str
    kind: str
    factor: float | None

    @property
    def amplifies(self) -> bool:
        """True if h grows. Nothing says then whether the loss should rise or fall, so that both are
        tested."""
        return self.factor is not None and self.factor > 1


def parse_how(text: str, engine: str = "transformers") -> tuple[How, ...]:
    """The ways that a word names: one, or a dose for each factor of `scale:X,Y,...`.

    Raises InputError for a word that is not known, a factor that is no number or comes twice, and
    what the engine cannot do.

    >>> [how.factor for how in parse_how("scale:0,0.5,2")]
    [0.0, 0.5, 2.0]
    """
    if engine not in HOW:
        raise InputError(f"ablate: engine: expected {', '.join(HOW)}, got {engine!r}")
    kind, colon, rest = text.partition(":")
    known = HOW["transformers"]
    if kind not in known or (kind == "scale") != bool(colon):
        shown = ", ".join(f"{name}:X[,Y...]" if name == "scale" else name for name in known)
        raise InputError(f"ablate: how: expected {shown}, got {text!r}")
    if kind not in HOW[engine]:
        raise InputError(
            f"ablate: the {engine} engine cannot ablate by {kind}; use the transformers engine"
        )
    if kind != "scale":
        return (How(text, kind, 0.0 if kind == "zero" else None),)
    factors = [_factor(part, text) for part in rest.split(",")]
    if len(set(factors)) < len(factors):
        raise InputError(f"ablate: how: a factor comes twice in {text!r}")
    return tuple(How(f"scale:{factor:g}", kind, factor) for factor in factors)


def _factor(part: str, text: str) -> float:
    try:
        factor = float(part)
    except ValueError:
        factor = math.nan
    if not math.isfinite(factor):
        raise InputError(f"ablate: how: expected numbers as in scale:0,0.5,2, got {text!r}")
    return float(f"{factor:g}")  # the name says exactly what is done
