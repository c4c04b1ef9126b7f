"""What one source discovers, another with clusters of its own confirms."""

import numpy as np
from simulated import simulate

from sparcom.analysis.components.confirmation import Confirmation, confirmations
from sparcom.analysis.data.frequencies import Frequencies
from sparcom.analysis.data.labels import Labels
from sparcom.analysis.data.strata import Strata

NAMES = ("CLS", "CODE", "QA", "GEN", "MATH", "SUM")


def _confirmed(planted: tuple[int, int], clusters: tuple[int, int] = (12, 12)) -> Confirmation:
    """Two sources, with so many planted neurons and clusters a category; the first tested in the
    second."""
    rng = np.random.default_rng(0)
    worlds = [
        simulate(rng, planted=p, clusters=k, cluster_effect=0.4, neurons=400)
        for p, k in zip(planted, clusters, strict=True)
    ]
    tokens = np.concatenate([world.tokens for world in worlds])
    share = np.concatenate([world.frequency for world in worlds])
    counts = np.rint(share * tokens[:, None]).astype(np.uint16)
    source = np.repeat([0, 1], [len(world.tokens) for world in worlds])
    labels = Labels(
        ids=tuple(map(str, range(len(tokens)))),
        categories=NAMES,
        codes=np.concatenate([world.codes for world in worlds]),
        tokens=tokens,
        clusters=np.concatenate([world.clusters for world in worlds]) + 1000 * source,
        cluster_names=(),
    )
    length = np.concatenate([world.strata for world in worlds])
    strata = Strata(
        sources=("ai", "human"), source=np.repeat([0, 1], 12), length=np.tile(np.arange(12), 2),
        codes=12 * source + length,
    )  # fmt: skip
    found = Frequencies(rows=np.arange(len(tokens)), counts=counts, tokens=tokens)
    first, second = confirmations(found, labels, strata, alpha=0.05)
    assert (first.found_in, first.tested_in) == ("ai", "human")
    assert (second.found_in, second.tested_in) == ("human", "ai")
    return first


def test_what_is_planted_in_both_is_confirmed() -> None:
    found = _confirmed((60, 60))
    assert found.discovered.sum() >= 54
    assert found.confirmed.sum() >= 0.8 * found.discovered.sum()
    assert found.chance < 0.05
    assert found.clusters.tolist() == [12] * 6


def test_what_is_planted_in_one_alone_is_not() -> None:
    found = _confirmed((60, 0))
    assert found.discovered.sum() >= 54
    assert found.confirmed.sum() <= 0.06 * found.discovered.sum()


def test_without_a_discovery_nothing_is_confirmed() -> None:
    found = _confirmed((0, 60))
    assert found.discovered.sum() <= 1
    assert found.confirmed.sum() <= 1


def test_a_source_with_too_few_clusters_confirms_nothing() -> None:
    found = _confirmed((60, 60), (12, 1))
    assert np.isnan(found.confirmed).all()
    assert np.isnan(found.chances).all()
    assert found.chance == 0
