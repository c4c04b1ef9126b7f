import numpy as np
import pytest

from sparcom.analysis.overlap.adjusted import adjusted_effect
from sparcom.analysis.overlap.sources import source_overlaps
from sparcom.analysis.stats.resample import bootstrap_weights, permuted_codes


def _draws(codes: np.ndarray, strata: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    permuted = permuted_codes(codes, strata, 199, rng)
    weights = bootstrap_weights(codes, np.arange(len(codes)), 100, rng)
    return permuted, weights, rng.permuted(np.tile(strata, (100, 1)), axis=1)


def _symmetric(rng: np.random.Generator, n: int) -> np.ndarray:
    half = rng.normal(0, 0.05, (n, n))
    return half + half.T


def test_adjusted_effect_is_the_regression_with_a_constant_for_every_two_strata() -> None:
    rng = np.random.default_rng(0)
    codes, strata = rng.integers(0, 3, 40), rng.integers(0, 4, 40)
    same = codes[:, None] == codes
    values = 0.3 * same + 0.1 * (strata[:, None] + strata) + _symmetric(rng, 40)
    found = adjusted_effect(values, codes, strata, *_draws(codes, strata))
    rows, columns = np.triu_indices(40, 1)
    low, high = (f(strata[rows], strata[columns]) for f in (np.minimum, np.maximum))
    both = np.unique(low * 4 + high, return_inverse=True)[1]
    design = np.column_stack([same[rows, columns], both[:, None] == np.arange(both.max() + 1)])
    beta = np.linalg.lstsq(design.astype(float), values[rows, columns], rcond=None)[0]
    assert found.effect.value == pytest.approx(beta[0], rel=1e-9)
    assert found.effect.low < 0.3 < found.effect.high
    assert found.effect.p == pytest.approx(1 / 200)


def test_an_effect_of_length_alone_is_explained_away() -> None:
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(3), 40)
    strata = np.clip(codes + rng.integers(-1, 2, 120), 0, 2)
    values = 0.2 * (strata[:, None] == strata) + _symmetric(rng, 120)
    found = adjusted_effect(values, codes, strata, *_draws(codes, strata))
    assert found.explained.value == pytest.approx(1, abs=0.05)
    assert found.explained.low < 1 < found.explained.high
    assert found.explained.chance == pytest.approx(0, abs=0.05)
    assert found.explained.chance_high < found.explained.low
    assert found.effect.low < 0 < found.effect.high
    assert found.effect.p > 0.05
    assert found.effect.chance == pytest.approx(0, abs=0.005)


def test_strata_that_hold_one_category_each_leave_nothing_to_say() -> None:
    codes = np.repeat(np.arange(3), 10)
    values = np.random.default_rng(0).random((30, 30))
    found = adjusted_effect(values, codes, codes, *_draws(codes, codes))
    assert found.effect.value is None
    assert (found.explained.value, found.informative) == (None, 0.0)


def test_sources_are_compared_within_and_across() -> None:
    rng = np.random.default_rng(0)
    codes, source = np.arange(80) % 4, np.arange(80) // 4 % 2
    same, near = codes[:, None] == codes, source[:, None] == source
    values = 0.2 * same + 0.1 * near + 0.3 * (same & near) + _symmetric(rng, 80)
    permuted, weights, _ = _draws(codes, source)
    found = source_overlaps(
        values, codes, tuple("abcd"), source, ("ai", "human"), permuted, weights
    )
    assert [(s.first, s.second) for s in found] == [
        ("ai", "ai"), ("ai", "human"), ("human", "human")
    ]  # fmt: skip
    for part, expected in zip(found, (0.5, 0.2, 0.5), strict=True):
        assert part.effect.value == pytest.approx(expected, abs=0.02)
        assert part.effect.low < part.effect.value < part.effect.high
        assert part.effect.p < 0.02
    across = found[1].matrix
    pairs = values[np.ix_((source == 0) & (codes == 1), (source == 1) & (codes == 2))]
    assert across.mean[1, 2] == pytest.approx(pairs.mean())
    assert across.pairs[1, 1] == 100
    assert found[0].matrix.pairs[1, 1] == 45
