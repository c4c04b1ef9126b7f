"""The null that keeps both margins, against sets that are drawn from it."""

import numpy as np
import pytest

from sparcom.analysis.data.bitsets import pack
from sparcom.analysis.overlap.measures import chance_jaccard
from sparcom.analysis.overlap.prevalence_chance import fit_margins, prevalence_chance


def test_the_fit_has_both_margins() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((40, 500)) < rng.beta(0.3, 1, 500) * np.linspace(0.4, 1, 40)[:, None]
    mask[:, :7] = True
    held = mask.sum(0)
    level, times = np.unique(held[held > 0], return_counts=True)
    share = fit_margins(mask.sum(1).astype(float), level.astype(float), times.astype(float))
    np.testing.assert_allclose(share @ times, mask.sum(1), rtol=1e-3)
    np.testing.assert_allclose(share.sum(0), level, rtol=1e-3)


def test_it_is_the_mean_of_sets_drawn_with_these_margins() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((12, 300)) < rng.beta(0.4, 1, 300)
    held = mask.sum(0)
    level, at = np.unique(held[held > 0], return_inverse=True)
    share = fit_margins(
        mask.sum(1).astype(float), level.astype(float), np.bincount(at).astype(float)
    )[:, at]
    seen = np.zeros((12, 12))
    for _ in range(400):
        drawn = (rng.random(share.shape) < share).astype(float)
        inter = drawn @ drawn.T
        size = np.diagonal(inter)
        seen += inter / (size[:, None] + size - inter) / 400
    apart = ~np.eye(12, dtype=bool)
    found = prevalence_chance(pack(mask))
    np.testing.assert_allclose(found[apart], seen[apart], rtol=0.06)


def test_always_held_components_make_sets_alike_where_uniform_chance_does_not_see_it() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((60, 2000), bool)
    mask[:, :40] = rng.random((60, 40)) < 0.97
    mask[:, 40:] = rng.random((60, 1960)) < 0.005
    sizes = mask.sum(1)[:, None]
    uniform = chance_jaccard(sizes, np.array([2000]))
    inter = mask.astype(float) @ mask.T
    observed = inter / (sizes + sizes.T - inter)
    apart = ~np.eye(60, dtype=bool)
    kept = prevalence_chance(pack(mask))[apart].mean()
    assert uniform[apart].mean() < 0.05
    assert kept == pytest.approx(observed[apart].mean(), abs=0.02)
