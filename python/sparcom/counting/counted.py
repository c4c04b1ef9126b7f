"""What every engine returns. It has a file of its own, so that reading counts needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparcom.counting.magnitudes import Magnitudes


@dataclass(frozen=True)
class Counted:
    """Counts of some instructions, one row each.

    ids: instruction ids.
    tokens: [n] int64, T, the counted tokens.
    neurons: [n, neurons] int32, c, in the flat order of the worker's sites; C-contiguous.
    experts: [n, experts] int32, r, the routed counts; C-contiguous.
    signs: [2, n, neurons] int32, how often up was positive, and how often gate and up both were;
        None if they were not counted. Each [n, neurons] part is C-contiguous.
    magnitudes: how strongly neurons fired and experts contributed; None if that was not asked for.
    """

    ids: tuple[str, ...]
    tokens: np.ndarray
    neurons: np.ndarray
    experts: np.ndarray
    signs: np.ndarray | None = None
    magnitudes: Magnitudes | None = None

    def rows(self, index: Sequence[int]) -> "Counted":
        """Those of some rows, in this order."""
        at = list(index)
        return Counted(
            tuple(self.ids[row] for row in at),
            self.tokens[at],
            self.neurons[at],
            self.experts[at],
            None if self.signs is None else self.signs[:, at],
            None if self.magnitudes is None else self.magnitudes.rows(at),
        )
