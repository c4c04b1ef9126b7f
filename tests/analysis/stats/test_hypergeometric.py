import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from sparcom.analysis.stats.hypergeometric import (
    EXACT_LIMIT,
    SMALLEST_P,
    approximate_tail,
    hypergeometric_pmf,
    stratified_tail,
)


def _pmf(n: int, ours: int, m: int) -> np.ndarray:
    ways = [
        math.comb(ours, x) * math.comb(n - ours, m - x) if 0 <= m - x <= n - ours else 0
        for x in range(ours + 1)
    ]
    return np.array([way / math.comb(n, m) for way in ways])


def _tail(x: int, members: np.ndarray, ours: np.ndarray, total: np.ndarray) -> float:
    """By plain convolution of exact distributions."""
    joint = np.ones(1)
    for m, a, n in zip(members, ours, total, strict=True):
        joint = np.convolve(joint, _pmf(int(n), int(a), int(m)))
    return float(joint[max(x, 0) :].sum())


strata = st.lists(
    st.integers(1, 14).flatmap(
        lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(0, n))
    ),
    min_size=1,
    max_size=5,
)


@given(strata, st.integers(0, 60))
def test_tail_is_the_convolution_of_the_strata(drawn: list[tuple[int, int, int]], x: int) -> None:
    total, ours, members = (np.array(column) for column in zip(*drawn, strict=True))
    found = stratified_tail(np.array([x]), members[None], ours, total)[0]
    informative = ((ours > 0) & (ours < total)).any()
    expected = _tail(x, members, ours, total) if informative else 1.0
    assert found == pytest.approx(max(expected, SMALLEST_P), rel=1e-8, abs=2e-13)


@pytest.mark.parametrize(("n", "ours"), [(1, 0), (1, 1), (9, 4), (60, 60), (1200, 200)])
def test_pmf_rows_are_distributions(n: int, ours: int) -> None:
    found = hypergeometric_pmf(ours, n)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-10)
    np.testing.assert_allclose(found[n // 2], _pmf(n, ours, n // 2), atol=1e-12)


def test_p_values_of_null_components_are_valid_at_every_level() -> None:
    rng = np.random.default_rng(0)
    total, ours = np.array([40, 70, 25]), np.array([10, 20, 0])
    members = rng.integers(0, 20, (4000, 3))
    inside = sum(rng.hypergeometric(a, n - a, m) if a else 0 * m
                 for a, n, m in zip(ours, total, members.T, strict=True))  # fmt: skip
    p = stratified_tail(inside, members, ours, total)
    for level in (0.5, 0.1, 0.05, 0.01):
        assert (p <= level).mean() <= level + 3 * math.sqrt(level / 4000)


def test_the_approximation_never_understates_and_stays_close() -> None:
    rng = np.random.default_rng(0)
    total, ours = rng.integers(200, 240, 20), rng.integers(20, 60, 20)
    assert total.sum() < EXACT_LIMIT
    members = rng.binomial(total, rng.choice([0.01, 0.05, 0.5], (3000, 1)), (3000, 20))
    inside = rng.binomial(members.sum(1), 0.25)
    exact = stratified_tail(inside, members, ours, total)
    near = approximate_tail(inside, members, ours, total)
    seen = exact > 1e-7
    ratio = near[seen] / exact[seen]
    assert ratio.min() > 0.98
    assert np.quantile(ratio, 0.95) < 1.5


def test_one_stratum_is_scipys_hypergeometric_tail() -> None:
    x, m = np.array([2, 0, 40, 5]), np.array([2, 2, 60, 300])
    found = stratified_tail(x, m[:, None], [100], [600])
    np.testing.assert_allclose(found, hypergeom.sf(x - 1, 600, 100, m), rtol=1e-8, atol=1e-12)


def test_beyond_the_limit_the_approximation_takes_over() -> None:
    total, ours = np.array([EXACT_LIMIT + 1]), np.array([1000])
    args = np.array([40]), np.array([[100]])
    assert stratified_tail(*args, ours, total) == approximate_tail(*args, ours, total)


def test_no_informative_stratum_says_nothing() -> None:
    found = stratified_tail(np.array([7, 3]), np.array([[7, 2], [3, 9]]), [7, 0], [7, 9])
    assert found.tolist() == [1.0, 1.0]
    assert stratified_tail(np.zeros(0, int), np.zeros((0, 1), int), [1], [2]).shape == (0,)
