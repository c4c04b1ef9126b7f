import numpy as np
import pytest

from sparcom.analysis.stats.estimate import (
    Estimate,
    estimate,
    estimate_of,
    estimate_table,
    varying,
)


def test_p_counts_the_draw_at_hand() -> None:
    null = np.arange(99, dtype=float)
    assert estimate(200.0, None, null).p == 1 / 100
    assert estimate(98.0, None, null).p == 2 / 100
    assert estimate(-1.0, None, null).p == 1.0
    assert estimate(-1.0, None, null, tail="less").p == 1 / 100
    assert estimate(200.0, None, null, tail="both").p == 2 / 100  # 2 (1 + 0) / (1 + 99)
    assert estimate(98.0, None, null, tail="both").p == 4 / 100
    assert estimate(49.0, None, null, tail="both").p == 1.0


def test_resamples_that_do_not_vary_are_no_interval() -> None:
    assert estimate(0.054, varying(np.full(9, 0.054))) == Estimate(0.054)
    draws = np.array([1.0, np.nan, 2.0])
    assert varying(draws) is draws
    assert varying(np.full(3, np.nan)) is None


def test_what_is_not_finite_is_none_and_not_a_number_that_spreads() -> None:
    assert estimate(float("nan"), np.ones(3), np.ones(3)) == Estimate(None)
    found = estimate(1.0, np.array([np.nan, 0.0, 2.0]), np.array([np.nan]))
    assert found.low is not None
    assert found.p is None
    assert estimate_table({"a": ["x"]}, [Estimate(None)])["value"].null_count == 1


def test_recentred_draws_lie_around_the_value() -> None:
    draws = np.random.default_rng(0).normal(5, 1, 4000)
    found = estimate(0.0, draws, recentre=True)
    assert found.low == pytest.approx(-1.96, abs=0.1)
    assert found.high == pytest.approx(1.96, abs=0.1)


def test_a_table_gives_its_estimates_back() -> None:
    items = [Estimate(1.0, 0.5, 1.5, 0.2, 0.1, 0.3, 0.01), Estimate(None)]
    rows = estimate_table({"a": ["x", "y"]}, items).to_pylist()
    assert [estimate_of(row) for row in rows] == items
