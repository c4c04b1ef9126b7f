"""Signs of the gate, and the four combinations of those of gate and up, from what was counted."""

import numpy as np

from sparcom.components import ComponentSpace

GATE_SIGNS = {"negative": -1, "positive": 1}
"""Ways to ablate: where the gate has this sign alone."""

COMBINATIONS = ("both", "gate_only", "up_only", "neither")
"""Which of gate and up is positive. h has the sign of up where the activation is; it is nearly 0
where gate is negative, for silu and gelu, and exactly 0 for relu."""


def combinations(
    space: ComponentSpace,
    tokens: np.ndarray,
    neurons: np.ndarray,
    experts: np.ndarray,
    signs: np.ndarray,
) -> np.ndarray:
    """[4, n, neurons] int64: how often each of `COMBINATIONS` occurred in the rows of a neuron.

        both = both,  gate_only = gate - both,  up_only = up - both,
        neither = rows - gate - up + both;  rows: T, or r of the neuron's expert

    tokens: [n] T; neurons: [n, neurons] gate > 0; experts: [n, experts] r; signs: [2, n, neurons]
        up > 0, and gate and up > 0. Sums over instructions may take their place.
    """
    gate, up, both = (x.astype(np.int64) for x in (neurons, *signs))
    rows = np.repeat(np.asarray(tokens, np.int64)[:, None], space.neurons, 1)
    routed = np.flatnonzero(space.neuron_experts >= 0)
    rows[:, routed] = experts[:, space.neuron_experts[routed]]
    return np.stack([both, gate - both, up - both, rows - gate - up + both])
