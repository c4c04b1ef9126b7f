import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from planted import draw_sets, planted_prevalence

from sparcom.analysis.components.generality import (
    classify,
    prevalence_entropy,
    relabelled_counts,
    tau_index,
)
from sparcom.analysis.data.bitsets import pack
from sparcom.analysis.stats.exchange import make_nodes
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


def test_thresholds_are_inclusive() -> None:
    codes = np.repeat(np.arange(6), 10)
    mask = np.zeros((60, 1), bool)
    mask[:5] = True
    mask[10] = True
    assert _classify(mask, codes).unique[0] == 0
    mask[11] = True
    assert _classify(mask, codes).unique[0] == -1


def test_relabelled_counts_are_those_of_permuted_clusters() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(12), 3)
    codes = clusters // 2
    mask = rng.random((36, 400)) < np.linspace(0.02, 0.9, 400)
    nodes = make_nodes(codes, clusters, 0 * codes, np.full(36, 10))
    draws = nodes.permuted(50, rng)
    found = relabelled_counts(pack(mask), nodes, draws, 6, high=0.5, low=0.2)
    seen = [_classify(mask, draw[nodes.node], high=0.5, low=0.2) for draw in draws]
    general = np.array([one.general.sum() for one in seen])
    unique = np.array([one.unique_counts() for one in seen])
    assert general.max() > 0
    assert unique.max() > 0
    assert found.general == pytest.approx((general.mean(), *np.quantile(general, [0.025, 0.975])))
    np.testing.assert_allclose([each[0] for each in found.unique], unique.mean(0))


def test_scores_are_compared_with_components_held_as_often() -> None:
    """One instruction holds it: tau is 1 whatever its category, so that nothing is in excess."""
    codes = np.repeat(np.arange(6), 10)
    rng = np.random.default_rng(0)
    mask = np.stack([rng.permutation(60) < held for held in [1] * 50 + [12] * 200], 1)
    found = _classify(mask, codes)
    np.testing.assert_allclose(found.tau[:50], 1)
    np.testing.assert_allclose(found.tau_excess[:50], 0, atol=1e-12)
    assert found.tau_excess[50:].mean() == pytest.approx(0, abs=0.03)
    assert found.entropy_excess[50:].mean() == pytest.approx(0, abs=0.03)
    alone = _classify((codes == 0)[:, None], codes)
    assert alone.tau_excess[0] > 0.3


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


def test_a_category_without_instructions_decides_nothing() -> None:
    codes = np.repeat(np.arange(5), 10)
    found = _classify(np.ones((50, 2), bool), codes)
    assert found.general.all()
    assert found.unique_counts()[5] == 0


def test_bounds_must_be_in_order() -> None:
    with pytest.raises(InputError, match=r"0 <= low < high <= 1, got 0\.6 and 0\.5"):
        _classify(np.ones((6, 1), bool), np.arange(6), high=0.5, low=0.6)
