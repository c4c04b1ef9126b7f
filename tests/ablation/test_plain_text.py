"""Random sets that are enlarged until plain text suffers as much."""

import numpy as np
import pytest

from sparcom.ablation.plain_text import enlarged
from sparcom.ablation.target import Target
from sparcom.components import ComponentSpace, Site

SPACE = ComponentSpace(tuple(Site("dense", layer, 400, "silu") for layer in range(3)))
TARGET = Target("t", "neurons", np.array([0, 1, 2, 800]))


def harm(target: Target) -> float:
    """Every neuron of layer 0 costs 0.01, any other 0.001."""
    return float(np.where(target.index < 400, 0.01, 0.001).sum())


@pytest.mark.parametrize("wanted", [0.001, 0.031, 0.5, 2.0])
def test_the_harm_is_that_of_the_target(wanted: float) -> None:
    found = enlarged(TARGET, SPACE, harm, wanted, np.random.default_rng(0))
    assert found is not None
    one, rise = found
    assert rise == pytest.approx(harm(one))
    assert rise == pytest.approx(max(wanted, harm(TARGET)), rel=0.15)
    assert not np.isin(one.index, TARGET.index).any()
    layers = one.index // 400
    assert set(layers.tolist()) == {0, 2}  # the sites of the target, in its proportions
    assert (layers == 0).sum() == 3 * (layers == 2).sum()


def test_there_is_none_for_a_harmless_target_or_beyond_the_model() -> None:
    rng = np.random.default_rng(0)
    assert enlarged(TARGET, SPACE, harm, 0.0, rng) is None
    assert enlarged(TARGET, SPACE, harm, 99.0, rng) is None
