"""Ablation masks: of the given neurons, in any order, and of no others."""

import numpy as np

from sparcom.components import Site
from sparcom.counting.masks import ablation_masks

SITES = [
    Site("dense", 0, 3, "silu"),
    Site("routed", 1, 2, "silu", experts=3, top_k=1),
    Site("dense", 2, 4, "silu"),
]


def test_masks_of_the_sites_with_ablated_neurons():
    index, values = np.array([8, 2, 5]), np.array([0.5, -1.0, 2.0])
    found = {at: (keep.tolist(), fill.tolist()) for at, keep, fill in
             ablation_masks(SITES, index, values)}  # fmt: skip
    assert found == {
        0: ([[1, 1, 0]], [[0, 0, -1]]),
        1: ([[1, 1], [0, 1], [1, 0]], [[0, 0], [2, 0], [0, 0.5]]),
    }
    each = {at: keep.tolist() for at, keep, _ in ablation_masks(SITES, index, factor=values)}
    assert each == {0: [[1, 1, -1]], 1: [[1, 1], [2, 1], [1, 0.5]]}
    halved = {at: keep.tolist() for at, keep, _ in ablation_masks(SITES, index, factor=0.5)}
    assert halved == {0: [[1, 1, 0.5]], 1: [[1, 1], [0.5, 1], [1, 0.5]]}
    zeroed = {at: fill.any() for at, _, fill in ablation_masks(SITES, index)}
    assert zeroed == {0: False, 1: False}
    assert list(ablation_masks(SITES, np.zeros(0, np.int64))) == []
