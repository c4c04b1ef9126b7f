from itertools import product

import numpy as np
import pytest

from sparcom.analysis.data.bitsets import intersections, pack
from sparcom.analysis.data.profile import (
    Profile,
    ProfileBuilder,
    chance_ratio_of_sums,
    mean_intersection,
    ratio_of_sums,
)
from sparcom.errors import InputError


def _profile(mask: np.ndarray, codes: np.ndarray, strata: np.ndarray) -> Profile:
    names = tuple("abc"[: codes.max() + 1])
    builder = ProfileBuilder(names, codes, tuple("xyz"), strata, mask.shape[1])
    order = np.random.default_rng(3).permutation(len(codes))
    for rows in np.array_split(order, 5):
        builder.add(pack(mask[rows]), rows)
    return builder.build()


def _case() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((60, 37)) < 0.3, rng.integers(0, 3, 60), rng.integers(0, 3, 60)


def test_members_are_counted_per_category_and_stratum_in_any_order() -> None:
    mask, codes, strata = _case()
    found = _profile(mask, codes, strata)
    for cell, (c, s) in enumerate(zip(found.category, found.stratum, strict=True)):
        inside = (codes == c) & (strata == s)
        assert found.count[cell] == inside.sum()
        np.testing.assert_array_equal(found.members[cell], mask[inside].sum(0))
    np.testing.assert_array_equal(found.totals(), mask.sum(0))
    count, members = found.by_category()
    np.testing.assert_array_equal(count, np.bincount(codes))
    np.testing.assert_array_equal(members[1], mask[codes == 1].sum(0))
    np.testing.assert_array_equal(found.pooled().totals(), mask.sum(0))
    assert found.within([0, 2]).instructions == (strata != 1).sum()


def test_mean_intersections_follow_exactly_from_prevalence() -> None:
    mask, codes, strata = _case()
    found = mean_intersection(_profile(mask, codes, strata))
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
    np.testing.assert_allclose(ratio_of_sums(_profile(mask, codes, codes * 0)), 1)


def test_sets_and_rows_must_match() -> None:
    builder = ProfileBuilder(("a",), np.zeros(3, int), ("x",), np.zeros(3, int), 9)
    with pytest.raises(InputError, match="2 sets for 3 instructions"):
        builder.add(np.zeros((2, 2), np.uint8), np.arange(3))


def test_chance_of_the_ratio_is_that_of_random_sets() -> None:
    rng = np.random.default_rng(0)
    parts = (slice(0, 40), slice(40, 100))
    codes = np.repeat([0, 1], 150)
    mask = np.zeros((300, 100), bool)
    for row, of in zip(mask, codes, strict=True):
        for part, size in zip(parts, ((10, 5), (4, 20))[of], strict=True):
            row[rng.choice(np.arange(part.start, part.stop), size, replace=False)] = True
    profile = _profile(mask, codes, codes * 0)
    found = chance_ratio_of_sums(profile, parts)
    np.testing.assert_allclose(found, ratio_of_sums(profile), rtol=0.03)
