import numpy as np
import pytest

from sparcom.analysis.overlap.layer_pattern import LayerPattern, layer_pattern
from sparcom.analysis.stats.resample import bootstrap_weights, permuted_codes

WIDTHS = np.full(5, 1000)


def _pattern(share: np.ndarray, seed: int = 0, n: int = 300) -> LayerPattern:
    """Sets of 100 components whose sites are drawn from share[category]."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % len(share)
    sizes = np.stack([rng.multinomial(100, share[c]) for c in codes])
    return layer_pattern(
        sizes, WIDTHS, codes, tuple("abc"),
        permuted_codes(codes, codes * 0, 300, rng),
        bootstrap_weights(codes, np.arange(n), 300, rng),
    )  # fmt: skip


def test_categories_that_share_a_pattern_are_no_further_than_chance() -> None:
    common = np.tile([0.05, 0.1, 0.2, 0.3, 0.35], (3, 1))
    found = _pattern(common)
    assert found.between.p > 0.05
    assert abs(found.excess.value) < 0.01
    assert found.from_even.value == pytest.approx(0.25, abs=0.02)
    assert found.stability.value > 0.9


def test_a_category_with_its_own_depth_is_found_and_measured() -> None:
    share = np.array([[0.2] * 5, [0.2] * 5, [0.3, 0.3, 0.2, 0.1, 0.1]])
    found = _pattern(share)
    assert found.between.p == pytest.approx(1 / 301)
    alike, apart, _ = found.pairs
    assert apart.value == pytest.approx(0.2, abs=0.02)
    assert alike.value < 0.02
    assert found.between.value == pytest.approx(0.4 / 3, abs=0.02)
    assert found.table().num_rows == 3


def test_one_category_has_no_distance() -> None:
    codes = np.zeros(10, int)
    found = layer_pattern(np.ones((10, 5)), WIDTHS, codes, ("a",), codes[None], np.ones((1, 10)))
    assert found.between.value is None
    assert found.stability.value is None


def test_chance_of_an_even_spread_is_that_of_sets_drawn_evenly() -> None:
    rng = np.random.default_rng(0)
    codes, widths = np.arange(60) % 3, np.array([100, 300, 50, 50])
    sizes = np.stack([rng.multivariate_hypergeometric(widths, size) for size in 10 + codes * 20])
    draws = [
        np.stack([rng.multivariate_hypergeometric(widths, s) for s in sizes.sum(1)])
        for _ in range(300)
    ]
    none = np.zeros((0, 60))
    found = [layer_pattern(s, widths, codes, tuple("abc"), none, none) for s in draws]
    expected = np.mean([f.from_even.value for f in found])
    assert found[0].from_even.chance == pytest.approx(expected, rel=0.05)


def test_stability_has_the_ceiling_of_permuted_labels() -> None:
    alike = _pattern(np.tile([0.05, 0.1, 0.2, 0.3, 0.35], (3, 1))).stability
    assert alike.chance_low <= alike.value <= alike.chance_high
    apart = _pattern(np.array([[0.2, 0.2, 0.1, 0.1, 0.4]] * 2 + [[0.3, 0.3, 0.2, 0.1, 0.1]]))
    assert apart.stability.value < apart.stability.chance_low
    assert apart.stability.p == pytest.approx(1 / 301)
    pairs = apart.table().to_pylist()
    assert [row["p"] <= 0.05 for row in pairs[1:]] == [True, True]
    assert pairs[1]["low"] is None


def test_a_category_without_sets_leaves_the_others_their_figures() -> None:
    share = np.array([[0.2, 0.2, 0.1, 0.1, 0.4], [0.3, 0.3, 0.2, 0.1, 0.1]])
    rng = np.random.default_rng(0)
    codes = np.arange(60) % 2
    sizes = np.stack([rng.multinomial(100, share[c]) for c in codes])
    draws = permuted_codes(codes, codes * 0, 50, rng), np.ones((50, 60))
    two = layer_pattern(sizes, WIDTHS, codes, ("a", "b"), *draws)
    three = layer_pattern(sizes, WIDTHS, codes, ("a", "b", "c"), *draws)
    assert three.between == two.between
    assert three.pairs[1].value is None
