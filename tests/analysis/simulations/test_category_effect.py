"""The primary figure's test keeps its level, and its intervals cover, in simulated worlds."""

import numpy as np
import pytest
from simulated import World, simulate

from sparcom.analysis.overlap.category_effect import effect_estimate
from sparcom.analysis.overlap.pair_design import PairDesign
from sparcom.analysis.stats.estimate import Estimate
from sparcom.analysis.stats.exchange import make_nodes

NULLS = {
    "no length": {"length_effect": 0.0, "confounding": 0.0},
    "length goes with category": {},
    "strong length": {"length_effect": 1.0},
    "four clusters": {"clusters": 4},
    "two large clusters": {"clusters": 2, "size": 12},
    "matched passages": {"clusters": 20, "crossed": True, "confounding": 0.0},
}


def adjusted(world: World, rng: np.random.Generator, draws: int = 199) -> Estimate:
    """The adjusted effect of a world, as the product makes it."""
    nodes = make_nodes(world.codes, world.clusters, 0 * world.codes, world.tokens)
    size = np.log(world.tokens)
    apart = np.abs(size[:, None] - size)
    design = PairDesign(nodes, world.strata, nodes.permuted(draws, rng), [apart])
    return effect_estimate(design.effects(world.jaccard(30)), design)


def _level(null: dict, repeats: int, seed: int) -> float:
    rng = np.random.default_rng(seed)
    return float(np.mean([adjusted(simulate(rng, **null), rng).p <= 0.05 for _ in range(repeats)]))


def test_without_an_effect_p_is_seldom_small() -> None:
    assert _level(NULLS["length goes with category"], 40, 0) <= 0.15


@pytest.mark.slow
@pytest.mark.parametrize("name", NULLS)
def test_the_level_of_the_test_is_five_per_cent(name: str) -> None:
    """Of 600 data sets without an effect, 3 to 7 % have p <= 0.05."""
    assert 0.03 <= _level(NULLS[name], 600, 1) <= 0.07


def _coverage(world: dict, repeats: int, seed: int) -> float:
    rng = np.random.default_rng(seed)
    found = [adjusted(simulate(rng, **world), rng, 39) for _ in range(repeats)]
    truth = np.mean([one.value for one in found])
    return float(np.mean([one.low <= truth <= one.high for one in found]))


def test_intervals_cover_the_effect() -> None:
    assert _coverage({"category_effect": 0.4}, 40, 0) >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    "world",
    [
        {"category_effect": 0.4},
        {"category_effect": 0.4, "clusters": 4},
        {"category_effect": 0.0},
        {"category_effect": 0.4, "clusters": 20, "crossed": True},
    ],
    ids=["twelve clusters", "four clusters", "no effect", "matched passages"],
)
def test_ninety_five_per_cent_intervals_do(world: dict) -> None:
    """Clusters and instructions are drawn again; the truth is the mean over 600 data sets."""
    assert 0.92 <= _coverage(world, 600, 2) <= 0.98


def test_an_effect_is_found() -> None:
    rng = np.random.default_rng(0)
    found = [adjusted(simulate(rng, category_effect=0.4), rng) for _ in range(10)]
    assert all(one.p <= 0.05 and one.low > 0 for one in found)


def test_templates_alone_are_no_effect() -> None:
    """Two clusters in each of two categories: three partitions, so that nothing can be told."""
    rng = np.random.default_rng(0)
    world = simulate(rng, clusters=2, size=9, cluster_effect=2.0)
    kept = np.flatnonzero(world.codes < 2)
    few = world.take(kept)
    found = adjusted(few, rng)
    assert found.value is not None
    assert (found.low, found.p) == (None, None)
