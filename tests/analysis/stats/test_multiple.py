import numpy as np
import pytest

from sparcom.analysis.stats.multiple import max_statistic


def test_each_figure_is_compared_with_the_most_extreme_of_the_family() -> None:
    rng = np.random.default_rng(0)
    null = rng.normal(5, [1, 10, 0.1], (99, 3))
    value = null.mean(0) + null.std(0) * [4, -1, 0]
    scores = np.abs((null - null.mean(0)) / null.std(0)).max(1)
    expected = [(1 + (scores >= z).sum()) / 100 for z in (4, 1, 0)]
    found = max_statistic(value, null, two_sided=True)
    np.testing.assert_allclose(found, expected)
    assert max_statistic(value, null, two_sided=False)[1] > 0.9


def test_a_family_is_seldom_wrong_anywhere() -> None:
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(400):
        draws = rng.normal(0, 1, (100, 20))
        wrong += max_statistic(draws[0], draws[1:], two_sided=True).min() <= 0.05
    assert wrong / 400 == pytest.approx(0.05, abs=0.03)


def test_what_is_not_known_or_does_not_vary_has_no_p() -> None:
    null = np.random.default_rng(0).normal(0, 1, (9, 3))
    null[:, 1] = 2.0
    found = max_statistic(np.array([np.nan, 2.0, 0.0]), null, two_sided=True)
    assert np.isnan(found[:2]).all()
    assert found[2] == pytest.approx(1, abs=0.5)
    assert np.isnan(max_statistic(np.ones(2), np.zeros((0, 2)), two_sided=True)).all()
