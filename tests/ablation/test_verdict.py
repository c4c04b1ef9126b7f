"""The inference of ablation, by simulation: no target is declared to matter too often."""

import numpy as np
import pytest
from scipy import stats

from sparcom.ablation.verdict import (
    Trial,
    cluster_interval,
    corrected_p,
    draw_sets,
    enough,
    fewest_sets,
    prediction_interval,
    weights_of,
)

FULL = 3000
"""Data sets of a slow simulation: a rate of 0.05 is then known to 0.008 (two standard errors)."""


def figures(rng: np.random.Generator, rows: int, cells: int) -> np.ndarray:
    """[rows, cells] exchangeable, skewed, heavy-tailed and correlated figures, of unlike spread."""
    shared, own = rng.standard_normal((rows, 1)), rng.standard_normal((rows, cells))
    return np.exp(shared + 0.7 * own) * np.geomspace(1, 20, cells)


def trial(rng: np.random.Generator, sets: int, cells: int, early: bool) -> Trial:
    """A target that is one more random set."""
    rows = figures(rng, sets + 1, cells)
    return draw_sets(rows[0], lambda number: rows[number + 1], sets, early=early)


def named(sets: int, cells: int, targets: int, early: bool, runs: int, seed: int = 0) -> float:
    """Share of data sets in which exchangeable targets are declared to matter somewhere."""
    rng, hits = np.random.default_rng(seed), 0
    for _ in range(runs):
        found = corrected_p([trial(rng, sets, cells, early) for _ in range(targets)])
        hits += any((p <= 0.05).any() for p in found)
    return hits / runs


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(("sets", "cells", "targets"), [(19, 6, 1), (119, 3, 6), (99, 6, 2)])
def test_exchangeable_targets_are_rarely_named(sets, cells, targets, early) -> None:
    assert named(sets, cells, targets, early, runs=400) <= 0.08  # 0.05 + 2.7 standard errors


@pytest.mark.slow
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(("sets", "targets"), [(19, 1), (99, 1), (119, 6)])
@pytest.mark.parametrize("cells", [1, 2, 3, 4, 5, 6])
def test_exchangeable_targets_are_named_in_at_most_6_percent(sets, cells, targets, early) -> None:
    assert named(sets, cells, targets, early, runs=FULL) <= 0.06


def single(sets: int, early: bool, runs: int, seed: int = 1) -> float:
    """P(p <= 0.05) of one cell of one target."""
    rng = np.random.default_rng(seed)
    found = [corrected_p([trial(rng, sets, 1, early)])[0][0] for _ in range(runs)]
    return float(np.mean(np.array(found) <= 0.05))


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("sets", [19, 99])
def test_one_test_keeps_its_level(sets, early) -> None:
    assert 0.03 <= single(sets, early, runs=1500) <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("sets", [19, 99, 199])
def test_one_test_keeps_its_level_exactly(sets, early) -> None:
    assert 0.043 <= single(sets, early, runs=FULL) <= 0.057


def test_the_old_rule_fails_this_simulation() -> None:
    """A test that cannot fail is a defect: comparing with the mean of the sets is caught by it."""
    rng, hits = np.random.default_rng(2), 0
    for _ in range(400):
        rows = figures(rng, 100, 6)
        low = rows[1:].mean(0) + 2 * rows[1:].std(0) / np.sqrt(99)
        hits += (rows[0] > low).any()
    assert hits / 400 > 0.3


def test_an_effect_is_found_by_each_target_that_has_one() -> None:
    rng = np.random.default_rng(3)
    trials = [trial(rng, 99, 4, early=True) for _ in range(3)]
    rows = figures(rng, 99, 4)
    observed = np.median(rows, axis=0)
    observed[2] = 1e4
    found = corrected_p([*trials, Trial(observed, rows)])
    assert found[-1][2] == pytest.approx(0.04)
    assert all((p > 0.05).all() for p in (*found[:-1], np.delete(found[-1], 2)))


def test_drawing_stops_where_the_answer_is_plain() -> None:
    observed = np.array([0.0, 0.0])
    draws = np.tile([[1.0, -1.0], [1.0, 1.0]], (50, 1))
    done = draw_sets(observed, lambda number: draws[number], 99)
    assert (len(done.draws), done.stopped) == (10, True)  # the second cell has its fifth there
    assert enough(99) == 5
    assert (corrected_p([done])[0] > 0.05).all()
    whole = draw_sets(observed, lambda number: draws[number], 99, early=False)
    assert (len(whole.draws), whole.stopped) == (99, False)


@pytest.mark.parametrize("sets", range(19, 240))
def test_a_trial_that_stops_early_never_matters(sets: int) -> None:
    assert enough(sets) / (sets - 1) > 0.05
    assert (1 + enough(sets)) / (1 + sets) > 0.05


def test_too_few_sets_are_undetermined() -> None:
    rows = np.random.default_rng(4).standard_normal((99, 2))
    strong = Trial(rows[0] + 99, rows[:19])
    assert corrected_p([strong])[0] == pytest.approx([0.05, 0.05])
    assert np.isnan(corrected_p([Trial(rows[0] + 99, rows[:18])])[0]).all()
    assert np.isnan(corrected_p([strong, strong])).all()
    assert fewest_sets(2) == 39
    alone = corrected_p([Trial(rows[0] + 99, rows), Trial(rows[0] - 99, rows[:5], stopped=True)])
    np.testing.assert_allclose(alone, [[0.02, 0.02], [1, 1]])


def test_the_correction_over_targets_is_holms() -> None:
    """The same p as statsmodels' definition: sorted p times what is left, never descending."""
    rows = np.arange(99.0)[:, None]
    ranks = [1, 1, 3, 40]
    trials = [Trial(np.array([99.5 - rank]), rows) for rank in ranks]
    alone = np.array(ranks) / 100
    expected = np.minimum(1, np.maximum.accumulate(alone * [4, 3, 2, 1]))
    np.testing.assert_allclose(np.concatenate(corrected_p(trials)), expected)


def test_equal_figures_do_not_matter() -> None:
    assert corrected_p([Trial(np.zeros(2), np.zeros((99, 2)))])[0].tolist() == [1, 1]


@pytest.mark.parametrize("sets", [39, 99, 200])
def test_another_set_falls_into_the_prediction_interval(sets: int) -> None:
    rng, inside = np.random.default_rng(5), 0
    for _ in range(2000):
        rows = figures(rng, sets + 1, 1)[:, 0]
        low, high = prediction_interval(rows[1:])
        inside += low <= rows[0] <= high
    assert 0.94 - 0.01 <= inside / 2000 <= 0.96 + 0.01
    assert prediction_interval(rows[:38]) == (None, None)


def test_weights_make_selectivity_and_the_mean() -> None:
    codes, effects = np.array([0, 0, 1, 2, 2, 2]), np.array([5.0, 7, 1, 3, 4, 8])
    assert weights_of(codes, 3, 0) @ effects == pytest.approx(6 - (1 + 5) / 2)
    assert weights_of(codes, 3, None) @ effects == pytest.approx((6 + 1 + 5) / 3)


def covered(rng: np.random.Generator, spanning: bool, clusters: int, runs: int) -> float:
    """Share of data sets whose interval of the first category's selectivity holds the truth, 0.3.

    spanning: every cluster holds one instruction of every category, else 2 of one.
    """
    hits = 0
    for _ in range(runs):
        if spanning:
            codes = np.tile(np.arange(3), clusters)
            at = np.repeat(np.arange(clusters), 3)
        else:
            codes = np.repeat(np.arange(3), 2 * clusters)
            at = np.repeat(np.arange(3 * clusters), 2)
        shared = rng.standard_normal(at.max() + 1)[at]
        effects = 0.3 * (codes == 0) + shared + 0.5 * rng.standard_normal(len(codes))
        low, high = cluster_interval(effects, weights_of(codes, 3, 0), codes, at)
        hits += low <= 0.3 <= high
    return hits / runs


@pytest.mark.parametrize("clusters", [5, 20])
@pytest.mark.parametrize("spanning", [False, True])
def test_intervals_over_clusters_hold_the_truth(spanning: bool, clusters: int) -> None:
    assert 0.92 <= covered(np.random.default_rng(6), spanning, clusters, 1500) <= 0.98


def test_one_category_is_the_classic_interval() -> None:
    effects = np.random.default_rng(7).standard_normal(9)
    zeros = np.zeros(9, np.int64)
    found = cluster_interval(effects, weights_of(zeros, 1, None), zeros, np.arange(9))
    expected = stats.t.interval(0.95, 8, effects.mean(), stats.sem(effects))
    np.testing.assert_allclose(found, expected)


def test_few_clusters_have_no_interval() -> None:
    codes, at = np.array([0] * 6), np.array([0, 0, 1, 1, 2, 2])
    weights = weights_of(codes, 1, None)
    assert cluster_interval(np.arange(6.0), weights, codes, at) == (None, None)


@pytest.mark.parametrize("effect", [0.0, 1.0, -1.0])
def test_clusters_that_are_all_alike_have_no_interval(effect: float) -> None:
    """Six answers of six that became wrong do not say that every other one would."""
    codes, at = np.zeros(6, np.int64), np.arange(6)
    weights = weights_of(codes, 1, None)
    assert cluster_interval(np.full(6, effect), weights, codes, at) == (None, None)
    low, high = cluster_interval(np.array([0, 1, 1, 1, 1, 1.0]), weights, codes, at)
    assert low < 5 / 6 < high
