import numpy as np
import pytest

from sparcom.analysis.layer_pattern import LayerPattern, layer_pattern
from sparcom.analysis.resample import bootstrap_weights, permuted_codes

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
    assert found.excess.low < 0 < found.excess.high
    assert found.from_even.value == pytest.approx(0.25, abs=0.02)
    assert found.stability.value > 0.9


def test_a_category_with_its_own_depth_is_found_and_measured() -> None:
    share = np.array([[0.2] * 5, [0.2] * 5, [0.3, 0.3, 0.2, 0.1, 0.1]])
    found = _pattern(share)
    assert found.between.p == pytest.approx(1 / 301)
    assert found.distance[0, 2] == pytest.approx(0.2, abs=0.02)
    assert found.distance[0, 1] < 0.02
    assert found.between.low < 0.4 / 3 + 0.01
    assert found.between.high > 0.4 / 3 - 0.01
    assert found.table().num_rows == 3


def test_one_category_has_no_distance() -> None:
    codes = np.zeros(10, int)
    found = layer_pattern(np.ones((10, 5)), WIDTHS, codes, ("a",), codes[None], np.ones((1, 10)))
    assert found.between.value is None
    assert found.stability.value is None
