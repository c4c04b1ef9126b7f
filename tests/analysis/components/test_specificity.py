import numpy as np
import pytest
from planted import draw_sets, membership_of, planted_prevalence

from sparcom.analysis.components.specificity import (
    candidates,
    confirm,
    specificity_test,
)
from sparcom.analysis.data.membership import Membership
from sparcom.store import length_edges

NAMES = ("CLS", "CODE", "QA", "GEN", "MATH", "SUM")


def _membership(mask: np.ndarray, codes: np.ndarray, strata: np.ndarray) -> Membership:
    return membership_of(NAMES, mask, codes, strata)


def test_discoveries_are_those_of_the_step_up_rule_over_all_tests() -> None:
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(6), 20)
    membership = _membership(
        draw_sets(planted_prevalence(NAMES, 200), codes, rng), codes, codes * 0
    )
    for alpha in (0.01, 0.05, 0.3):
        result = specificity_test(membership, alpha=alpha)
        ordered = np.sort(result.p.reshape(-1))
        passing = np.flatnonzero(ordered <= alpha * np.arange(1, len(ordered) + 1) / len(ordered))
        assert len(passing)
        np.testing.assert_array_equal(result.specific, result.p <= ordered[passing[-1]])
    none = specificity_test(membership, tested=np.zeros(0, np.int64))
    assert none.q.shape == none.p.shape == (6, 0)


def test_candidates_look_at_totals_only() -> None:
    rng = np.random.default_rng(0)
    codes = np.arange(600) % 6
    mask = rng.random((600, 80)) < np.linspace(0, 1, 80)
    first = candidates(_membership(mask, codes, codes * 0))
    again = candidates(_membership(mask, rng.permutation(codes), codes * 0))
    np.testing.assert_array_equal(first, again)
    totals = mask.sum(0)
    np.testing.assert_array_equal(first, np.flatnonzero((totals >= 6) & (totals <= 594)))


def _null_and_planted(rng: np.random.Generator) -> tuple[Membership, np.ndarray]:
    """100 instructions of each category in six strata; 15 components of each category are planted
    at 0.5 against 0.05, 20 are general, 200 are null."""
    codes = np.repeat(np.arange(6), 100)
    strata = rng.integers(0, 6, 600)
    q = planted_prevalence(NAMES, 20 + 90 + 200)
    q[:, 110:] = rng.uniform(0.02, 0.6, 200)
    truth = np.zeros(q.shape, bool)
    for c in range(6):
        truth[c, 20 + 15 * c : 35 + 15 * c] = True
    return _membership(draw_sets(q, codes, rng), codes, strata), truth


def test_false_discoveries_and_power_on_planted_truth() -> None:
    shares, power = [], []
    for seed in range(200):
        membership, truth = _null_and_planted(np.random.default_rng(seed))
        result = specificity_test(membership)
        found, real = result.specific, truth[:, result.tested]
        shares.append((found & ~real).sum() / max(found.sum(), 1))
        power.append((found & real).sum() / truth.sum())
    rate, error = np.mean(shares), np.std(shares, ddof=1) / np.sqrt(200)
    assert rate <= 0.05 + 2 * error
    assert np.mean(power) >= 0.95


def test_under_permuted_labels_nothing_is_found_beyond_chance() -> None:
    draws_with_discovery = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        codes = np.repeat(np.arange(6), 100)
        mask = draw_sets(planted_prevalence(NAMES, 300), codes, rng)
        membership = _membership(mask, rng.permutation(codes), rng.integers(0, 4, 600))
        draws_with_discovery += bool(specificity_test(membership).specific.any())
    assert draws_with_discovery <= 100 * 0.05 + 2 * np.sqrt(100 * 0.05 * 0.95)


@pytest.mark.parametrize("shift", [0.5, 1.0])
def test_length_is_not_called_specific(shift: float) -> None:
    """Instructions of one category are longer and membership follows length alone: with strata,
    no more data sets than alpha have any discovery; without, each has a hundred."""
    draws, with_discovery = 25, 0
    codes = np.arange(1200) % 6
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        tokens = np.exp(rng.normal(3.5, 0.6, 1200) + shift * (codes == 5)).astype(int) + 3
        strata = np.searchsorted(length_edges(np.bincount(tokens)), tokens)
        lean = 1.5 * (np.log(tokens)[:, None] - 3.5) + rng.normal(-1, 1, 300)
        mask = rng.random((1200, 300)) < 1 / (1 + np.exp(-lean))
        membership = _membership(mask, codes, strata)
        adjusted = specificity_test(membership)
        with_discovery += bool(adjusted.specific.any())
        plain = specificity_test(membership.pooled(), tested=adjusted.tested)
        assert plain.specific[5].sum() > 100
    assert with_discovery <= draws * 0.05 + 2 * np.sqrt(draws * 0.05 * 0.95)


def test_a_category_alone_in_its_strata_cannot_be_tested() -> None:
    codes = np.repeat(np.arange(6), 20)
    mask = draw_sets(planted_prevalence(NAMES, 200), codes, np.random.default_rng(0))
    result = specificity_test(_membership(mask, codes, codes))
    assert (result.p == 1).all()
    assert not result.specific.any()


def test_prevalence_inside_and_elsewhere() -> None:
    codes = np.array([0, 0, 0, 0, 1, 1, 2, 3, 4, 5])
    mask = np.zeros((10, 8), bool)
    mask[:3, 0] = mask[4, 0] = True
    result = specificity_test(_membership(mask, codes, codes * 0), tested=np.array([0]))
    assert result.inside[:2, 0].tolist() == [3, 1]
    assert result.prevalence[0, 0] == 0.75
    assert result.elsewhere[0, 0] == pytest.approx(1 / 6)


def test_what_one_half_discovers_the_other_confirms() -> None:
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(6), 100)
    halves = [
        _membership(draw_sets(planted_prevalence(NAMES, 300), codes, rng), codes, codes * 0)
        for _ in range(2)
    ]
    result = confirm(*halves, found_in="human", tested_in="ai")
    assert result.discovered.sum() >= 85
    assert result.confirmed.sum() > 0.95 * result.discovered.sum()
    assert (result.confirmed <= result.discovered).all()
    assert result.chance <= 0.06


def test_without_a_discovery_nothing_is_confirmed() -> None:
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(6), 50)
    halves = [_membership(rng.random((300, 40)) < 0.3, codes, codes * 0) for _ in range(2)]
    result = confirm(*halves, found_in="human", tested_in="ai")
    assert (result.discovered.sum(), result.confirmed.sum()) == (0, 0)
