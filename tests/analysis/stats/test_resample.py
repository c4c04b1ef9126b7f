import numpy as np
import pytest

from sparcom.analysis.stats.pair_sums import (
    permutation_draws,
    same_minus_different,
    weighted_sums,
)
from sparcom.analysis.stats.resample import bootstrap_weights, permuted_codes

N = 30


def _values(seed: int = 0) -> np.ndarray:
    half = np.random.default_rng(seed).random((N, N))
    return half + half.T


def _means(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The category matrix, by taking out each block."""
    out = np.zeros((3, 3))
    for a in range(3):
        for b in range(3):
            block = values[np.ix_(codes == a, codes == b)]
            out[a, b] = block[~np.eye(len(block), dtype=bool)].mean() if a == b else block.mean()
    return out


def test_permuted_labels_stay_in_their_stratum() -> None:
    codes, strata = np.arange(N) % 3, np.arange(N) // 10
    draws = permuted_codes(codes, strata, 50, np.random.default_rng(0))
    for draw in draws:
        for stratum in range(3):
            inside = strata == stratum
            assert sorted(draw[inside]) == sorted(codes[inside])
    assert (draws != codes).any()


def test_draws_are_the_category_matrix_of_the_relabelled() -> None:
    values = _values()
    draws = permuted_codes(np.arange(N) % 3, np.zeros(N, int), 700, np.random.default_rng(0))
    found = permutation_draws(values, draws, 3)
    rows, columns = np.triu_indices(N, 1)
    for at in (0, 311, 699):
        codes = draws[at]
        np.testing.assert_allclose(found.means()[at], _means(values, codes))
        same = codes[rows] == codes[columns]
        pairs = values[rows, columns]
        expected = pairs[same].mean() - pairs[~same].mean()
        assert found.difference()[at] == pytest.approx(expected)


def test_a_weighted_pair_never_meets_itself() -> None:
    values = _values()
    np.fill_diagonal(values, 1e9)
    codes = np.arange(N) % 3
    weights = np.random.default_rng(0).integers(0, 4, (8, N)).astype(float)
    found = weighted_sums(values, codes, weights, 3)
    rows = np.repeat(np.arange(N), weights[7].astype(int))
    for a in range(3):
        for b in range(3):
            pairs = [
                values[i, k]
                for i in rows[codes[rows] == a]
                for k in rows[codes[rows] == b]
                if i != k
            ]
            assert found.means()[7, a, b] == pytest.approx(np.mean(pairs))


def test_resampled_means_vary_as_the_mean_does() -> None:
    """The variance of a mean of m is s^2 / m, s^2 with m - 1: also of few."""
    values = np.array([1.0, 4.0, 5.0])
    weights = bootstrap_weights(np.zeros(3, int), np.arange(3), 40_000, np.random.default_rng(0))
    means = weights @ values / weights.sum(1)
    assert means.var() == pytest.approx(values.var(ddof=1) / 3, rel=0.03)
    assert means.mean() == pytest.approx(values.mean(), rel=0.01)
    one = bootstrap_weights(np.zeros(2, int), np.zeros(2, int), 5, np.random.default_rng(0))
    assert (one == 1).all()


def test_units_come_and_go_together_and_groups_keep_their_number() -> None:
    groups, units = np.arange(N) % 2, np.arange(N) // 6
    weights = bootstrap_weights(groups, units, 200, np.random.default_rng(0))
    for group in range(2):
        for unit in range(5):
            inside = weights[:, (groups == group) & (units == unit)]
            assert (inside == inside[:, :1]).all()
        np.testing.assert_allclose(weights[:, groups == group].sum(1), 15)
    assert (weights.std(0) > 0).all()


def test_sums_of_nothing_are_nan_and_only_there() -> None:
    assert np.isnan(same_minus_different(np.ones((1, 1)), np.ones((1, 1))))
    found = permutation_draws(_values(), np.zeros((2, N), int), 2).means()
    assert np.isnan(found[:, 1]).all()
    assert np.isfinite(found[:, 0, 0]).all()


def test_permutation_p_values_are_uniform_under_the_null() -> None:
    """Labels without meaning: p <= 0.1 in a tenth of the data sets."""
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        values, codes = _values(seed), rng.permutation(np.arange(N) % 3)
        draws = permuted_codes(codes, np.zeros(N, int), 99, rng)
        null = permutation_draws(values, draws, 3).difference()
        value = permutation_draws(values, codes[None], 3).difference()[0]
        hits += (1 + (null >= value).sum()) / 100 <= 0.1
    assert 8 <= hits <= 34
