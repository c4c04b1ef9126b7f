"""Component tests keep the false discovery rate with few templates, and find what is planted."""

import numpy as np
import pytest
from scipy import stats
from simulated import World, simulate

from sparcom.analysis.components.enrichment import Enrichment, enrichment

NAMES = ("CLS", "CODE", "QA", "GEN", "MATH", "SUM")


def enrichment_of(world: World, *, specific: bool = False) -> Enrichment:
    return enrichment(
        lambda: iter([world.frequency]), world.codes, NAMES, world.clusters, world.strata,
        specific=specific,
    )  # fmt: skip


def _false_rate(world: dict, repeats: int, seed: int) -> float:
    """False among the discovered, of data sets in which the first `planted` neurons are true."""
    rng, rates, planted = np.random.default_rng(seed), [], world.get("planted", 0)
    for _ in range(repeats):
        test = enrichment_of(simulate(rng, neurons=1000, **world))
        found = test.enriched | test.depleted
        rates.append(found[:, planted:].sum() / max(found.sum(), 1))
    return float(np.mean(rates))


@pytest.mark.parametrize("clusters", [2, 4, 12])
def test_few_templates_make_no_discoveries(clusters: int) -> None:
    """30 instructions a category without any effect of it: no data set of 5 has a discovery."""
    world = {"clusters": clusters, "size": max(5, 30 // clusters)}
    assert _false_rate(world, 5, 0) <= 0.2


@pytest.mark.slow
@pytest.mark.parametrize("cluster_effect", [0.5, 0.8, 1.5])
@pytest.mark.parametrize("clusters", [2, 4, 12])
def test_the_false_discovery_rate_is_kept(clusters: int, cluster_effect: float) -> None:
    world = {"clusters": clusters, "size": max(5, 30 // clusters), "cluster_effect": cluster_effect}
    assert _false_rate(world, 100, 1) <= 0.06


@pytest.mark.slow
def test_the_false_discovery_rate_is_kept_beside_true_ones() -> None:
    assert _false_rate({"planted": 120, "cluster_effect": 0.5}, 60, 2) <= 0.06


def test_planted_neurons_are_enriched() -> None:
    """0.6 against 0.2 with twelve clusters a category: power at least 90 %."""
    test = enrichment_of(simulate(np.random.default_rng(0), planted=60, cluster_effect=0.5))
    own = test.enriched[np.arange(60) % 6, np.arange(60)]
    assert own.mean() >= 0.9


@pytest.mark.slow
def test_power_on_planted_neurons() -> None:
    rng, own = np.random.default_rng(3), []
    for _ in range(20):
        test = enrichment_of(simulate(rng, neurons=1000, planted=120, cluster_effect=0.5))
        own.append(test.enriched[np.arange(120) % 6, np.arange(120)].mean())
    assert np.mean(own) >= 0.9


def _coverage(world: dict, repeats: int, seed: int) -> float:
    rng, inside = np.random.default_rng(seed), []
    for _ in range(repeats):
        test = enrichment_of(simulate(rng, neurons=400, **world))
        half = stats.t.ppf(0.975, test.freedom)[:, None] * test.error
        inside.append(np.abs(test.difference) <= half)
    return float(np.mean(inside))


@pytest.mark.parametrize("clusters", [4, 12])
def test_intervals_of_no_difference_cover_it(clusters: int) -> None:
    assert 0.92 <= _coverage({"clusters": clusters, "size": 6}, 8, 0) <= 0.98


def test_specific_is_above_every_other_category() -> None:
    """Enriched in two categories is specific to neither; 0.6 against 0.2 everywhere is."""
    world = simulate(np.random.default_rng(1), clusters=20, planted=120, cluster_effect=0.3,
                     confounding=0.0)  # fmt: skip
    donor = world.frequency[:, [0]].copy()
    donor[world.codes == 1] = world.frequency[world.codes == 1][:, [1]]  # planted in 0, and in 1
    mixed = World(
        frequency=np.concatenate([world.frequency, donor], 1),
        codes=world.codes,
        clusters=world.clusters,
        tokens=world.tokens,
    )
    test = enrichment_of(mixed, specific=True)
    assert test.enriched[[0, 1], [-1, -1]].all()
    assert not test.specific[:, -1].any()
    own = test.specific[np.arange(120) % 6, np.arange(120)]
    assert own.mean() >= 0.8
    assert test.specific[:, 120:].sum() <= 0.06 * test.specific.sum()
    assert (test.specific <= test.enriched).all()
