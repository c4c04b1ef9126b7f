import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from planted import draw_sets, planted_prevalence

from sparcom.analysis.components.generality import (
    classify,
    count_intervals,
    prevalence_entropy,
    tau_index,
)
from sparcom.analysis.data.bitsets import pack
from sparcom.analysis.stats.resample import bootstrap_weights
from sparcom.errors import InputError

NAMES = ("CLS", "CODE", "QA", "GEN", "MATH", "SUM")
prevalences = arrays(np.float64, (4, 3), elements=st.floats(0, 1, width=16))


@given(prevalences)
def test_scores_lie_between_general_and_unique(q: np.ndarray) -> None:
    tau, entropy = tau_index(q), prevalence_entropy(q)
    held = q.sum(0) > 0
    assert np.isnan(tau[~held]).all()
    assert np.isnan(entropy[~held]).all()
    assert ((tau[held] >= -1e-12) & (tau[held] <= 1 + 1e-12)).all()
    assert ((entropy[held] >= -1e-12) & (entropy[held] <= 1 + 1e-12)).all()
    for n in np.flatnonzero(held):
        assert tau[n] == pytest.approx(sum(1 - v / q[:, n].max() for v in q[:, n]) / 3)


def test_scores_at_their_ends() -> None:
    q = np.array([[0.4, 0.8], [0.4, 0.0], [0.4, 0.0]])
    np.testing.assert_allclose(tau_index(q), [0, 1], atol=1e-12)
    np.testing.assert_allclose(prevalence_entropy(q), [1, 0], atol=1e-12)
    assert np.isnan(tau_index(q[:1])).all()


def _classify(mask: np.ndarray, codes: np.ndarray, **options: float):
    count = np.bincount(codes, minlength=6)
    members = np.stack([mask[codes == c].sum(0) for c in range(6)])
    fill = (members.sum(1) / np.maximum(count, 1) / mask.shape[1])[:, None]
    return classify(NAMES, count, members, fill, np.array([mask.shape[1]]), **options)


def test_planted_general_and_unique_components_are_found() -> None:
    codes = np.repeat(np.arange(6), 200)
    rng = np.random.default_rng(0)
    q = planted_prevalence(NAMES, 600)
    q[q == 0.5] = 0.7
    found = _classify(draw_sets(q, codes, rng), codes, low=0.3)
    np.testing.assert_array_equal(np.flatnonzero(found.general), np.arange(20))
    for c in range(6):
        expected = np.arange(20 + 15 * c, 35 + 15 * c)
        np.testing.assert_array_equal(np.flatnonzero(found.unique == c), expected)
    assert found.unique_counts().tolist() == [15] * 6
    assert found.general_chance < 1e-6
    assert found.unique_chance.max() < 1e-6


def test_thresholds_are_inclusive() -> None:
    codes = np.repeat(np.arange(6), 10)
    mask = np.zeros((60, 1), bool)
    mask[:5] = True
    mask[10] = True
    assert _classify(mask, codes).unique[0] == 0
    mask[11] = True
    assert _classify(mask, codes).unique[0] == -1


def test_unique_chance_bounds_what_permuted_labels_leave() -> None:
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(6), 6)
    mask = rng.random((36, 400)) < np.linspace(0.02, 0.5, 400)
    chance = _classify(mask, codes, high=0.5, low=0.2).unique_chance
    seen = np.zeros(6)
    for _ in range(200):
        seen += _classify(mask, rng.permutation(codes), high=0.5, low=0.2).unique_counts() / 200
    assert (seen <= chance + 0.2).all()
    assert chance.max() < 20 * seen.max()


def test_general_chance_is_that_of_random_sets() -> None:
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(6), 2)
    seen = 0.0
    for _ in range(100):
        mask = np.argsort(rng.random((12, 300)), 1) < 120
        found = _classify(mask, codes)
        seen += found.general.sum() / 100
    assert found.general_chance == pytest.approx(seen, rel=0.15)


@pytest.mark.parametrize("fill", [0.0, 1.0, 0.5, 0.03])
def test_general_chance_is_a_product_of_binomial_tails(fill: float) -> None:
    """P(Bin(2, q) >= 1) P(Bin(4, q) >= 2) for each of nine components."""
    count, members = np.array([2, 4]), np.zeros((2, 9), int)
    found = classify(("a", "b"), count, members, np.full((2, 1), fill), np.array([9]), high=0.5)
    by_hand = 9 * sum(math.comb(2, x) * fill**x * (1 - fill) ** (2 - x) for x in (1, 2)) * sum(
        math.comb(4, x) * fill**x * (1 - fill) ** (4 - x) for x in (2, 3, 4)
    )  # fmt: skip
    assert found.general_chance == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize("n", [12, 9000])
def test_unique_chance_is_the_hypergeometric_tail_of_each_total(n: int) -> None:
    """Components that no set holds, or all sets hold, cannot be unique."""
    count = np.array([n // 3, n - n // 3])
    members = np.array([[0, n // 3, n // 4, 0], [0, n - n // 3, 0, n // 12]])
    found = classify(("a", "b"), count, members, np.zeros((2, 1)), np.array([4])).unique_chance
    expected = np.zeros(2)
    for c, size in enumerate(count):
        most = math.floor(0.1 * (n - size) + 1e-9)
        for total in members.sum(0).tolist():
            least = max(math.ceil(0.5 * size), total - most)
            ways = sum(
                math.comb(size, x) * math.comb(n - size, total - x)
                for x in range(least, min(size, total) + 1)
            )
            expected[c] += float(Fraction(ways, math.comb(n, total)))
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-300)


def test_a_category_without_instructions_decides_nothing() -> None:
    codes = np.repeat(np.arange(5), 10)
    found = _classify(np.ones((50, 2), bool), codes)
    assert found.general.all()
    assert found.unique_chance[5] == 0


def test_bounds_must_be_in_order() -> None:
    with pytest.raises(InputError, match=r"0 <= low < high <= 1, got 0\.6 and 0\.5"):
        _classify(np.ones((6, 1), bool), np.arange(6), high=0.5, low=0.6)


def test_intervals_of_the_counts_are_those_of_resampled_instructions() -> None:
    rng, codes = np.random.default_rng(0), np.repeat(np.arange(6), 50)
    q = planted_prevalence(NAMES, 600)
    mask = draw_sets(q, codes, rng)
    weights = bootstrap_weights(codes, np.arange(300), 200, rng)
    general, unique = count_intervals(pack(mask), codes, weights, 6)
    drawn = []
    for weight in weights:
        found = _classify(np.repeat(mask, weight.astype(int), 0), codes)
        drawn.append([found.general.sum(), *found.unique_counts()])
    drawn, point = np.array(drawn), _classify(mask, codes)
    shifted = drawn - drawn.mean(0) + [point.general.sum(), *point.unique_counts()]
    expected = np.maximum(np.quantile(shifted, [0.025, 0.975], axis=0), 0).T
    np.testing.assert_allclose([general, *unique], expected)
    assert all(low < n < high for (low, high), n in zip(unique, point.unique_counts(), strict=True))
