"""Leave-one-cluster-out errors: those of known formulas, and of scipy's t interval."""

import numpy as np
import pytest
from scipy import stats

from sparcom.analysis.stats.jackknife import jackknife


def _bounds(values: np.ndarray, strata: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    left_out = jackknife(strata, clusters, np.random.default_rng(0))
    weights = left_out.weights
    low, high = left_out.bounds(values.mean(), weights @ values / weights.sum(1))
    return float(low), float(high)


def test_a_mean_of_independent_instructions_has_the_t_interval() -> None:
    values = np.random.default_rng(1).normal(size=12)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    found = _bounds(values, np.zeros(12, int), np.arange(12))
    assert found == pytest.approx(tuple(expected))


def test_a_difference_of_two_groups_has_welch_s_interval() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(0, 1, 7), rng.normal(1, 3, 9)
    codes = np.repeat([0, 1], [7, 9])
    left_out = jackknife(codes, np.arange(16), rng)
    weights, values = left_out.weights, np.concatenate([a, b])
    means = [(weights * (codes == c)) @ values / (weights * (codes == c)).sum(1) for c in (0, 1)]
    found = left_out.bounds(np.array(a.mean() - b.mean()), means[0] - means[1])
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert tuple(map(float, found)) == pytest.approx(tuple(expected))


def test_clusters_count_not_their_instructions() -> None:
    of_cluster = np.random.default_rng(3).normal(size=6)
    clusters = np.repeat(np.arange(6), 50)
    expected = stats.ttest_1samp(of_cluster, 0).confidence_interval()
    assert _bounds(of_cluster[clusters], 0 * clusters, clusters) == pytest.approx(tuple(expected))


def test_nothing_is_said_of_what_is_not_known() -> None:
    for values, clusters in (
        (np.arange(3.0), np.arange(3)),  # too few clusters
        (np.arange(8.0), np.zeros(8, int)),  # one: without it there is nothing
        (np.ones(8), np.arange(8)),  # nothing varies
    ):
        with np.errstate(invalid="ignore"):
            assert np.isnan(_bounds(values, 0 * clusters, clusters)).all()


def test_many_clusters_are_left_out_in_parts_of_their_stratum() -> None:
    strata = np.repeat([0, 1], [900, 300])
    left_out = jackknife(strata, np.arange(1200), np.random.default_rng(0))
    gone = left_out.weights == 0
    assert (gone.sum(0) == 1).all()
    assert np.bincount(left_out.stratum).tolist() == [180, 60]
    for part, stratum in zip(gone, left_out.stratum, strict=True):
        assert part.sum() == 5
        assert (strata[part] == stratum).all()
