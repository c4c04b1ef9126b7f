import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparcom.analysis.data.bitsets import intersections, pack
from sparcom.analysis.overlap import overlap
from sparcom.analysis.stats.resample import permutation_draws
from sparcom.errors import InputError

members = st.sets(st.integers(0, 30))


@given(members, members)
def test_measures_are_those_of_the_sets(a: set[int], b: set[int]) -> None:
    inter, sizes = np.array(len(a & b)), (np.array(len(a)), np.array(len(b)))
    union, least = len(a | b), min(len(a), len(b))
    assert overlap.jaccard(inter, *sizes) == (len(a & b) / union if union else 0)
    assert overlap.overlap_coefficient(inter, *sizes) == (len(a & b) / least if least else 0)
    assert overlap.containment(inter, *sizes) == (len(a & b) / len(a) if a else 0)


def _values(n: int = 12, size: int = 50) -> np.ndarray:
    mask = np.random.default_rng(0).random((n, size)) < 0.4
    return overlap.pair_matrix(intersections(pack(mask)))


def test_category_matrix_is_the_mean_over_pairs_of_two_instructions() -> None:
    values, labels = _values(), ["a", "b", "c", "a", "b", "c", "a", "a", "b", "c", "c", "a"]
    found = overlap.category_matrix(values, labels)
    for (i, a), (j, b) in product(enumerate("abc"), repeat=2):
        cell = [
            values[x, y]
            for x, y in product(range(12), repeat=2)
            if labels[x] == a and labels[y] == b and x != y
        ]
        assert found.mean[i, j] == pytest.approx(np.mean(cell), rel=1e-12)
        assert found.pairs[i, j] == len(cell) // (2 if a == b else 1)


def test_a_category_of_one_instruction_has_no_pair_and_says_so() -> None:
    found = overlap.category_matrix(_values(3), ["a", "b", "b"])
    assert np.isnan(found.mean[0, 0])
    assert found.pairs[0, 0] == 0
    assert found.pairs.tolist() == [[0, 2], [2, 1]]


def test_same_and_different_pairs_are_counted_once() -> None:
    values, labels = _values(), ["a", "b"] * 6
    found = overlap.same_different(values, labels)
    same = [values[i, j] for i in range(12) for j in range(i) if labels[i] == labels[j]]
    other = [values[i, j] for i in range(12) for j in range(i) if labels[i] != labels[j]]
    assert (found.same.count, found.different.count) == (30, 36)
    assert found.difference == pytest.approx(np.mean(same) - np.mean(other))
    wins = np.mean([(s > o) + (s == o) / 2 for s in same for o in other])
    assert found.superiority == pytest.approx(wins)
    assert found.same.density.sum() == pytest.approx(1)


def test_same_different_of_one_category_is_an_error() -> None:
    with pytest.raises(
        InputError, match=r"needs pairs of one category and pairs of two, got 66 and 0"
    ):
        overlap.same_different(_values(), ["a"] * 12)


def test_unknown_names_are_errors() -> None:
    with pytest.raises(InputError, match="measure: expected jaccard, overlap"):
        overlap.pair_matrix(np.eye(2), "cosine")
    with pytest.raises(InputError, match="needs chance"):
        overlap.pair_matrix(np.eye(2), "corrected")
    with pytest.raises(InputError, match="'c' is none of the categories a, b"):
        overlap.encode(["a", "c"], ["a", "b"])


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
    mean, variance = overlap.chance_intersection(np.array([a]), widths, np.array([b]))
    assert mean[0, 0] == pytest.approx(sum(x * p for x, p in joint), rel=1e-10)
    second = sum(x * x * p for x, p in joint) - mean[0, 0] ** 2
    assert variance[0, 0] == pytest.approx(second, rel=1e-8)
    exact = sum(p * x / (total - x) for x, p in joint)
    found = overlap.chance_jaccard(np.array([a]), widths, np.array([b]))[0, 0]
    assert found == pytest.approx(exact, rel=2e-3)


def test_corrected_is_zero_at_chance_and_one_for_equal_sets() -> None:
    assert overlap.corrected(np.array(0.2), np.array(0.2)) == 0
    assert overlap.corrected(np.array(1.0), np.array(0.2)) == 1
    assert overlap.corrected(np.array(1.0), np.array(1.0)) == 0


def test_ridits_give_the_superiority() -> None:
    values = np.round(_values(), 1)  # with ties
    labels = list("aabbbcccaabc")
    codes = np.array(["abc".index(c) for c in labels])
    found = permutation_draws(overlap.ridits(values), codes[None], 3).difference()[0]
    expected = overlap.same_different(values, labels).superiority
    assert 0.5 + found == pytest.approx(expected, rel=1e-12)
