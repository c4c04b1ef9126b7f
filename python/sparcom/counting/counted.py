"""What every engine returns. It has a file of its own, so that reading counts needs no torch."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Counted:
    """Counts of some instructions, one row each.

    ids: instruction ids.
    tokens: [n] int64, T, the counted tokens.
    neurons: [n, neurons] int32, c, in the flat order of the worker's sites; C-contiguous.
    experts: [n, experts] int32, r, the routed counts; C-contiguous.
    signs: [2, n, neurons] int32, how often up was positive, and how often gate and up both were;
        None if they were not counted. Each [n, neurons] part is C-contiguous.
    """

    ids: tuple[str, ...]
    tokens: np.ndarray
    neurons: np.ndarray
    experts: np.ndarray
    signs: np.ndarray | None = None
