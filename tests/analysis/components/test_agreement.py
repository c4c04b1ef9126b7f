"""Specificity against attribution: figures against SciPy and NumPy, intervals that cover."""

import numpy as np
import pytest
from scipy import stats

from sparcom.analysis.components.agreement import (
    Sums,
    correlation,
    correlation_estimates,
    correlations,
    firing_classes,
    overlap,
    reliabilities,
    site_ranks,
    specificity,
)

SITES = np.repeat([0, 1], [300, 200])


def test_the_correlation_is_spearmans_within_sites() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 3, 200)).round(2)
    one = np.zeros(200, np.int64)
    found = correlation(site_ranks(x, one), site_ranks(y, one))
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(found, expected)
    # Sites that differ in both rankings make no correlation, though one of all would find it.
    x, y = rng.random((2, 1, 500)) + 5 * SITES
    assert stats.spearmanr(x[0], y[0]).statistic > 0.5
    assert abs(correlation(site_ranks(x, SITES), site_ranks(y, SITES))[0]) < 0.12


def test_the_partial_correlation_is_that_of_residuals() -> None:
    rng = np.random.default_rng(1)
    given = rng.normal(size=(1, 400))
    x, y = given + rng.normal(size=(2, 1, 400))
    x, y, given = (one - one.mean() for one in (x, y, given))

    def left(of: np.ndarray) -> np.ndarray:
        return of[0] - (of[0] @ given[0]) / (given[0] @ given[0]) * given[0]

    expected = stats.pearsonr(left(x), left(y)).statistic
    np.testing.assert_allclose(correlation(x, y, given)[0], expected)


def test_specificity_is_above_the_next_category() -> None:
    frequency = np.array([[0.5, 0.1], [0.2, 0.4], [0.3, 0.3]])
    np.testing.assert_allclose(specificity(frequency), [[0.2, -0.3], [-0.3, 0.1], [-0.2, -0.1]])


def test_the_overlap_beside_random_lists_that_fire_as_often() -> None:
    rng = np.random.default_rng(2)
    often = rng.random(2000)
    classes = firing_classes(often, np.zeros(2000, np.int64))
    assert np.bincount(classes).tolist() == [100] * 20
    # Both follow how often a component fires, and nothing else: chance explains what they share.
    fires, matters = often + 0.02 * rng.random((2, 2000))
    k, found = overlap(fires, matters, classes, 100, rng)
    assert k == 100
    shared = len(set(np.argsort(-fires)[:100]) & set(np.argsort(-matters)[:100]))
    assert found.value == shared / 100
    assert found.chance > 0.5
    # By hand: random lists with the same members of each class.
    first, second = (np.bincount(classes[np.argsort(-one)[:100]], minlength=20)
                     for one in (fires, matters))  # fmt: skip
    assert found.chance == pytest.approx((first * second / 100).sum() / 100)
    drawn = [
        sum(
            len(np.intersect1d(rng.permutation(100)[:a], rng.permutation(100)[:b]))
            for a, b in zip(first, second, strict=True)
        ) / 100
        for _ in range(400)
    ]  # fmt: skip
    assert found.chance_low == pytest.approx(np.quantile(drawn, 0.025), abs=0.04)
    assert found.chance_high == pytest.approx(np.quantile(drawn, 0.975), abs=0.04)


def test_nothing_is_known_of_what_helps_nothing() -> None:
    rng = np.random.default_rng(3)
    classes = np.zeros(50, np.int64)
    assert overlap(rng.random(50), -rng.random(50), classes, 10, rng)[0] == 0
    few = np.where(np.arange(50) < 4, 1.0, -1.0)
    assert overlap(rng.random(50), few, classes, 10, rng)[0] == 4


def draws(rng: np.random.Generator, clusters: int = 8, m: int = 300, noise: float = 0.5):
    """Sums over clusters of three categories, in which both rankings share a part."""
    truth = np.random.default_rng(7)
    common, own = truth.normal(size=(3, m)), truth.normal(size=(2, 3, m))
    parts = 3 * clusters
    stratum = np.repeat(np.arange(3), clusters)
    counts = np.zeros((parts, 3))
    counts[np.arange(parts), stratum] = rng.integers(1, 6, parts)
    out = []
    for one in own:
        values = np.zeros((parts, 3, m))
        each = (common + one)[stratum] + noise * rng.normal(size=(parts, m))
        values[np.arange(parts), stratum] = each * counts[np.arange(parts), stratum][:, None]
        out.append(Sums(values=values, counts=counts))
    return out[0], out[1], stratum


def test_intervals_cover_what_as_many_clusters_give_on_average() -> None:
    rng, sites = np.random.default_rng(4), np.zeros(300, np.int64)
    found = []
    for _ in range(120):
        fires, matters, stratum = draws(rng)
        everyone = np.ones(len(stratum))
        value = correlations(fires.means(everyone), matters.means(everyone), sites)
        estimates = correlation_estimates(value, fires, matters, sites, stratum)
        found.append([[(e.value, e.low, e.high) for e in row] for row in estimates])
    figures = np.array(found)  # [draws, 2, C, 3]
    mean = figures[..., 0].mean(0)
    assert (mean[0] > 0.2).all()
    inside = (figures[..., 1] <= mean) & (mean <= figures[..., 2])
    assert 0.9 <= inside.mean() <= 0.99


def test_reliability_tells_noise_from_none() -> None:
    rng, sites = np.random.default_rng(5), np.zeros(300, np.int64)
    trust = {}
    for noise in (0.01, 3.0):
        fires, matters, stratum = draws(rng, noise=noise)
        trust[noise] = reliabilities(fires, matters, sites, stratum, rng)
    assert (trust[0.01] > 0.97).all()
    assert (trust[3.0] < 0.9).all()
    # Of a mean over k clusters with variances s and n of truth and noise: s / (s + n / k).
    assert trust[3.0][1].mean() == pytest.approx(2 / (2 + 9 / 8), abs=0.1)


def test_one_cluster_has_neither_interval_nor_reliability() -> None:
    rng, sites = np.random.default_rng(6), np.zeros(300, np.int64)
    fires, matters, stratum = draws(rng, clusters=1)
    everyone = np.ones(3)
    value = correlations(fires.means(everyone), matters.means(everyone), sites)
    (first, *_), _ = correlation_estimates(value, fires, matters, sites, stratum)
    assert first.value is not None
    assert first.low is None
    assert np.isnan(reliabilities(fires, matters, sites, stratum, rng)).all()
