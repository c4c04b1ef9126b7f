import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from sparcom.analysis.data.bitsets import intersections, pack
from sparcom.analysis.overlap import measures
from sparcom.analysis.overlap.category_matrix import category_matrix
from sparcom.analysis.overlap.same_different import ridits, same_different
from sparcom.analysis.stats.pair_sums import permutation_draws
from sparcom.errors import InputError

NAMES = ("a", "b", "c")
members = st.sets(st.integers(0, 30))


@given(members, members)
def test_measures_are_those_of_the_sets(a: set[int], b: set[int]) -> None:
    inter, sizes = np.array(len(a & b)), (np.array(len(a)), np.array(len(b)))
    union, least = len(a | b), min(len(a), len(b))
    assert measures.jaccard(inter, *sizes) == (len(a & b) / union if union else 0)
    assert measures.overlap_coefficient(inter, *sizes) == (len(a & b) / least if least else 0)
    assert measures.containment(inter, *sizes) == (len(a & b) / len(a) if a else 0)


def _values(n: int = 12, size: int = 50) -> np.ndarray:
    mask = np.random.default_rng(0).random((n, size)) < 0.4
    return measures.pair_matrix(intersections(pack(mask)))


def test_category_matrix_is_the_mean_over_pairs_of_two_instructions() -> None:
    values, codes = _values(), np.array([0, 1, 2, 0, 1, 2, 0, 0, 1, 2, 2, 0])
    found = category_matrix(values, codes, NAMES)
    for a, b in product(range(3), repeat=2):
        pairs = [
            values[x, y]
            for x, y in product(range(12), repeat=2)
            if codes[x] == a and codes[y] == b and x != y
        ]
        assert found.mean[a, b] == pytest.approx(np.mean(pairs), rel=1e-12)
        assert found.pairs[a, b] == len(pairs) // (2 if a == b else 1)


def test_a_category_of_one_instruction_has_no_pair_and_says_so() -> None:
    found = category_matrix(_values(3), np.array([0, 1, 1]), NAMES[:2])
    assert np.isnan(found.mean[0, 0])
    assert found.pairs[0, 0] == 0
    assert found.pairs.tolist() == [[0, 2], [2, 1]]


def _by_hand(values: np.ndarray, codes: np.ndarray) -> tuple[list[float], list[float]]:
    """Values of the same-type and of the different-type pairs."""
    pairs = [(i, j) for i in range(len(codes)) for j in range(i)]
    return (
        [values[i, j] for i, j in pairs if codes[i] == codes[j]],
        [values[i, j] for i, j in pairs if codes[i] != codes[j]],
    )


def test_same_and_different_pairs_are_counted_once() -> None:
    values, codes = _values(), np.arange(12) % 2
    found = same_different(values, codes)
    for part, expected in zip((found.same, found.different), _by_hand(values, codes), strict=True):
        assert part.count == len(expected)
        assert part.mean == pytest.approx(np.mean(expected))
        assert part.sd == pytest.approx(np.std(expected, ddof=1))
        np.testing.assert_allclose(
            part.quantiles, np.quantile(expected, [0.05, 0.25, 0.5, 0.75, 0.95])
        )
        inside = np.histogram(expected, found.edges)[0] / len(expected)
        np.testing.assert_allclose(part.density, inside)
        assert part.density.sum() == pytest.approx(1)


@pytest.mark.parametrize("codes", [np.zeros(12, int), np.arange(12)])
def test_pairs_of_one_sort_only_have_no_distributions(codes: np.ndarray) -> None:
    assert same_different(_values(), codes) is None


def test_an_unknown_measure_is_an_error() -> None:
    with pytest.raises(InputError, match="measure: expected jaccard, overlap, containment, got"):
        measures.pair_matrix(np.eye(2), "cosine")


def _exact_chance(a: int, b: int, w: int) -> dict[int, float]:
    return {
        x: math.comb(a, x) * math.comb(w - a, b - x) / math.comb(w, b)
        for x in range(max(0, a + b - w), min(a, b) + 1)
    }


@pytest.mark.parametrize(
    ("a", "b"), [((20, 40), (30, 10)), ((5, 60), (50, 60)), ((30, 0), (30, 5))]
)
def test_chance_jaccard_is_the_mean_over_random_sets(a: tuple, b: tuple) -> None:
    widths = np.array([100, 200])
    parts = [_exact_chance(x, y, int(w)) for x, y, w in zip(a, b, widths, strict=True)]
    total = sum(a) + sum(b)
    joint = [(x + y, p * q) for (x, p), (y, q) in product(parts[0].items(), parts[1].items())]
    mean, variance = measures.chance_intersection(np.array([a]), widths, np.array([b]))
    assert mean[0, 0] == pytest.approx(sum(x * p for x, p in joint), rel=1e-10)
    second = sum(x * x * p for x, p in joint) - mean[0, 0] ** 2
    assert variance[0, 0] == pytest.approx(second, rel=1e-8)
    exact = sum(p * x / (total - x) for x, p in joint)
    found = measures.chance_jaccard(np.array([a]), widths, np.array([b]))[0, 0]
    assert found == pytest.approx(exact, rel=2e-3)


def test_corrected_is_zero_at_chance_and_one_for_equal_sets() -> None:
    assert measures.corrected(np.array(0.2), np.array(0.2)) == 0
    assert measures.corrected(np.array(1.0), np.array(0.2)) == 1
    assert measures.corrected(np.array(1.0), np.array(1.0)) == 0


def test_ridits_give_the_superiority() -> None:
    """Mann-Whitney's U by scipy, over all pairs of a same-type and a different-type value."""
    values = np.round(_values(), 1)  # with ties
    codes = np.array([0, 0, 1, 1, 1, 2, 2, 0, 0, 0, 1, 2])
    found = permutation_draws(ridits(values), codes[None], 3).difference()[0]
    same, different = _by_hand(values, codes)
    expected = mannwhitneyu(same, different).statistic / len(same) / len(different)
    assert 0.5 + found == pytest.approx(expected, rel=1e-12)
