"""Tuning that changes all alike names no category; what it changes in one category is found."""

import numpy as np
import pytest
from simulated import simulate

from sparcom.analysis.stats.estimate import Estimate
from sparcom.analysis.tuning.component_changes import component_changes
from sparcom.analysis.tuning.frequency_change import beyond
from sparcom.analysis.tuning.moved import against_others, beyond_floor
from sparcom.analysis.tuning.pairing import Pairing
from sparcom.components import ComponentSpace, Site

SPACE = ComponentSpace((Site("dense", 0, 200, "silu"),))


def world(
    rng: np.random.Generator, clusters: int, *, crossed: bool = False, draws: int = 199
) -> Pairing:
    """Six categories whose lengths differ, of `clusters` clusters each."""
    drawn = simulate(rng, clusters=clusters, neurons=1, crossed=crossed)
    n = len(drawn.codes)
    return Pairing(
        categories=tuple("ABCDEF"),
        codes=drawn.codes,
        clusters=drawn.clusters,
        drawn_from=np.full(n, -1) if crossed else drawn.codes,
        strata=drawn.strata,
        log_tokens=np.log(drawn.tokens),
        signs=rng.choice([-1.0, 1.0], (draws, drawn.clusters.max() + 1)),
    )


def change_of(rng: np.random.Generator, pairing: Pairing, own: float = 0.0) -> np.ndarray:
    """[n] how far each set moved: by its length, its cluster and noise; `own`: A's beyond that."""
    n, clusters = len(pairing.codes), pairing.clusters.max() + 1
    shorter = 0.15 - 0.06 * (pairing.log_tokens - 3.5)
    shared = rng.normal(0, 0.02, clusters)[pairing.clusters]
    return shorter + shared + rng.normal(0, 0.03, n) + own * (pairing.codes == 0)


def named(found: tuple[Estimate, ...]) -> list[int]:
    """The categories with p <= 0.05."""
    return [at for at, one in enumerate(found) if one.p is not None and one.p <= 0.05]


def _false_rate(repeats: int, seed: int, clusters: int, *, crossed: bool = False) -> float:
    rng, wrong = np.random.default_rng(seed), 0
    for _ in range(repeats):
        pairing = world(rng, clusters, crossed=crossed)
        wrong += bool(named(against_others(change_of(rng, pairing), pairing)[0]))
    return wrong / repeats


def test_change_by_length_alone_names_no_category() -> None:
    """Plain means do: that is what the strata are for."""
    assert _false_rate(40, 0, 12) <= 0.1
    rng = np.random.default_rng(1)
    pairing = world(rng, 12)
    change = change_of(rng, pairing)
    means = [change[pairing.codes == c].mean() for c in range(6)]
    assert max(means) - min(means) > 0.04


@pytest.mark.slow
@pytest.mark.parametrize(("clusters", "crossed"), [(2, False), (4, False), (12, False), (20, True)])
def test_the_error_rate_of_more_than_the_others(clusters: int, crossed: bool) -> None:
    assert _false_rate(1000, 2, clusters, crossed=crossed) <= 0.06


def test_a_category_that_moved_more_is_found() -> None:
    rng, found, size = np.random.default_rng(3), 0, []
    for _ in range(30):
        pairing = world(rng, 12)
        others = against_others(change_of(rng, pairing, 0.05), pairing)[0]
        found += 0 in named(others)
        size.append(others[0].value)
    assert found >= 27
    assert np.mean(size) == pytest.approx(0.05, abs=0.005)


def test_intervals_cover_the_difference() -> None:
    rng, inside = np.random.default_rng(4), []
    for _ in range(60):
        pairing = world(rng, 12)
        first = against_others(change_of(rng, pairing, 0.05), pairing)[0][0]
        inside.append(first.low <= 0.05 <= first.high)
    assert 0.9 <= np.mean(inside) <= 0.99


def _rates_beyond(repeats: int, seed: int) -> tuple[float, float]:
    """(data sets that name a category where floor and change are alike, that find a moved one)."""
    rng, wrong, found = np.random.default_rng(seed), 0, 0
    for _ in range(repeats):
        pairing = world(rng, 12)
        excess = change_of(rng, pairing) - change_of(rng, pairing)
        wrong += bool(named(beyond_floor(excess, pairing)[:-1]))
        excess += 0.06 * (pairing.codes == 0)
        found += 0 in named(beyond_floor(excess, pairing)[:-1])
    return wrong / repeats, found / repeats


def test_change_as_large_as_rounding_moved_no_category() -> None:
    wrong, found = _rates_beyond(100, 0)
    assert wrong <= 0.1
    assert found >= 0.9


@pytest.mark.slow
def test_the_error_rate_of_moved() -> None:
    assert _rates_beyond(1500, 15)[0] <= 0.06


def _rates_of_frequencies(repeats: int, clusters: int) -> tuple[float, float]:
    """(share of p <= 0.05 where a category's change is as large as the floor's, or its opposite;
    where it is larger). The first figure moves as rounding does, the second the other way."""
    rng, wrong, found = np.random.default_rng(9), [], []
    for _ in range(repeats):
        pairing = world(rng, clusters)
        n, drawn = len(pairing.codes), pairing.clusters.max() + 1

        def moved(by: np.ndarray, rng=rng, pairing=pairing, n=n, drawn=drawn) -> np.ndarray:
            shared = rng.normal(0, 0.02, (drawn, len(by)))[pairing.clusters]
            return by + shared + rng.normal(0, 0.03, (n, len(by)))

        floor = moved(np.array([0.05, 0.05, 0.05]))
        p = beyond(moved(np.array([0.05, -0.05, 0.12])), floor, pairing)[1][:-1]
        wrong += (p[:, :2] <= 0.05).ravel().tolist()
        found += (p[:, 2] <= 0.05).tolist()
    return float(np.mean(wrong)), float(np.mean(found))


def test_a_frequency_that_rounding_moves_as_far_did_not_change() -> None:
    wrong, found = _rates_of_frequencies(60, 12)
    assert wrong <= 0.06
    assert found >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("clusters", [4, 12])
def test_the_error_rate_of_changed_frequencies(clusters: int) -> None:
    assert _rates_of_frequencies(1500, clusters)[0] <= 0.06


def test_too_few_clusters_leave_the_value_alone() -> None:
    rng = np.random.default_rng(6)
    pairing = world(rng, 2)
    excess = change_of(rng, pairing)
    for one in beyond_floor(excess, pairing)[:-1]:
        assert one.value > 0
        assert (one.low, one.high, one.p) == (None, None, None)
    alone = pairing.take(np.flatnonzero(pairing.clusters % 2 == 0))  # one cluster a category
    others, effective = against_others(change_of(rng, alone), alone)
    assert all((one.low, one.p) == (None, None) for one in others)
    assert all(one.value is not None for one in effective)


def test_components_that_rounding_moves_as_much_are_not_found() -> None:
    """The first ten join by tuning, the next ten as often by tuning as by rounding."""
    rng = np.random.default_rng(7)
    clusters = np.repeat(np.arange(60), 4)
    n = len(clusters)
    base = rng.random((n, 200)) < 0.3
    tuned, again = (base ^ (rng.random(base.shape) < 0.02) for _ in range(2))
    tuned[:, :20] |= rng.random((n, 20)) < 0.4
    again[:, 10:20] |= rng.random((n, 10)) < 0.4
    packed = [np.packbits(sets, axis=1, bitorder="little") for sets in (base, tuned, again)]
    for floor, expected in ((None, 20), ((packed[0], packed[2]), 10)):
        table = component_changes("neurons", (packed[0], packed[1]), SPACE, clusters, floor)
        found = {row["unit"] for row in table.to_pylist() if row["q"] <= 0.05}
        assert set(range(expected)) <= found
        assert len(found) <= expected + 2
    assert table["floor_gained"].to_pylist()[0] is not None


def test_a_template_is_one_observation_of_a_component() -> None:
    """Five clusters of 40 instructions that all gain a component are five, too few to tell."""
    clusters = np.repeat(np.arange(5), 40)
    base, tuned = np.zeros((200, 200), bool), np.zeros((200, 200), bool)
    tuned[:, 0] = True
    sets = tuple(np.packbits(s, axis=1, bitorder="little") for s in (base, tuned))
    assert component_changes("neurons", sets, SPACE, clusters, None).num_rows == 0
