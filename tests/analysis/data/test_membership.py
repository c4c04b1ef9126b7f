from itertools import product

import numpy as np
import pytest
from planted import membership_of

from sparcom.analysis.data.bitsets import intersections, pack
from sparcom.analysis.data.membership import (
    chance_ratio_of_sums,
    mean_intersection,
    ratio_of_sums,
)

NAMES = ("a", "b", "c")


def _case() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((60, 37)) < 0.3, rng.integers(0, 3, 60), rng.integers(0, 3, 60)


def test_sums_over_categories_and_strata_are_those_of_the_sets() -> None:
    mask, codes, strata = _case()
    found = membership_of(NAMES, mask, codes, strata)
    assert found.instructions == 60
    np.testing.assert_array_equal(found.totals(), mask.sum(0))
    count, members = found.by_category()
    np.testing.assert_array_equal(count, np.bincount(codes))
    np.testing.assert_array_equal(members[1], mask[codes == 1].sum(0))
    np.testing.assert_allclose(found.prevalence()[2], mask[codes == 2].mean(0))
    pooled = found.pooled()
    np.testing.assert_array_equal(pooled.totals(), mask.sum(0))
    assert set(pooled.stratum) == {0}
    inside = found.within([0, 2])
    assert inside.instructions == (strata != 1).sum()
    np.testing.assert_array_equal(inside.totals(), mask[strata != 1].sum(0))


def test_mean_intersections_follow_exactly_from_prevalence() -> None:
    mask, codes, strata = _case()
    found = mean_intersection(membership_of(NAMES, mask, codes, strata))
    inter = intersections(pack(mask))
    for a, b in product(range(3), repeat=2):
        pairs = [
            inter[i, k]
            for i in np.flatnonzero(codes == a)
            for k in np.flatnonzero(codes == b)
            if i != k
        ]
        assert found[a, b] == pytest.approx(np.mean(pairs), rel=1e-12)


def test_ratio_of_sums_of_equal_sets_is_one() -> None:
    mask = np.tile(np.arange(20) < 5, (8, 1))
    codes = np.arange(8) % 2
    np.testing.assert_allclose(ratio_of_sums(membership_of(NAMES[:2], mask, codes, codes * 0)), 1)


def test_chance_of_the_ratio_is_that_of_random_sets() -> None:
    rng = np.random.default_rng(0)
    parts = (slice(0, 40), slice(40, 100))
    codes = np.repeat([0, 1], 150)
    mask = np.zeros((300, 100), bool)
    for row, of in zip(mask, codes, strict=True):
        for part, size in zip(parts, ((10, 5), (4, 20))[of], strict=True):
            row[rng.choice(np.arange(part.start, part.stop), size, replace=False)] = True
    membership = membership_of(NAMES[:2], mask, codes, codes * 0)
    found = chance_ratio_of_sums(membership, parts)
    np.testing.assert_allclose(found, ratio_of_sums(membership), rtol=0.03)
