"""What `keep` and `fill` cannot do to h: changes that depend on the row.

A site computes and counts h by its kernel; then its `Change` writes over it, in place.
"""

from typing import Protocol

from torch import Tensor


class Change(Protocol):
    """Changes the h of one site."""

    def __call__(
        self, h: Tensor, gate: Tensor, token: Tensor | None, expert: Tensor | None
    ) -> None:
        """Write over h.

        h, gate: [rows, width]. token: [rows] the row of the pass that each row is of, -1: of none;
        None: they are the rows of the pass. expert: [rows], -1: of another worker; None: all 0.
        """
        ...


class SilenceBySign:
    """h becomes 0 where the gate has a sign.

        h[r, i] = 0   where gate[r, i] * sign[expert[r], i] > 0

    sign: [experts or 1, width] in the gate's dtype: -1, 1, or 0 for a neuron that stays. A gate of
        0 has no sign, and its h is 0 anyway.
    """

    def __init__(self, sign: Tensor) -> None:
        self.sign = sign

    def __call__(
        self, h: Tensor, gate: Tensor, token: Tensor | None, expert: Tensor | None
    ) -> None:
        """As `Change`; by element-wise operations alone, which CUDA graphs can replay."""
        sign = self.sign if expert is None else self.sign[expert.clamp(min=0).long()]
        h.masked_fill_(gate * sign > 0, 0)
