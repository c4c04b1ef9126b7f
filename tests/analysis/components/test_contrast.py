"""The stratified difference and its error against plain matrices."""

import math

import numpy as np
import pytest

from sparcom.analysis.components.contrast import Contrast


def _world(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(codes, clusters, strata, x): three categories of six clusters with 2 to 5 instructions."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(18), rng.integers(2, 6, 18))
    codes = cluster // 6
    strata = rng.integers(0, 3, len(codes))
    x = rng.random((len(codes), 4)) + rng.normal(0, 0.3, (18, 4))[cluster] + 0.2 * strata[:, None]
    return codes, cluster, strata, x.astype(np.float32)


def _plain(
    inside: np.ndarray, cluster: np.ndarray, strata: np.ndarray, x: np.ndarray
) -> tuple[float, float, float]:
    """(coefficient, CR2 error, Bell-McCaffrey freedom for independent errors), by definition."""
    design = np.column_stack([inside, strata[:, None] == np.unique(strata)]).astype(float)
    bread = np.linalg.inv(design.T @ design)
    hat = design @ bread @ design.T
    beta = bread @ design.T @ x
    residual = x - design @ beta
    rows = [cluster == k for k in np.unique(cluster)]
    meat, to_score = 0.0, []
    rest = np.eye(len(x)) - hat
    for of in rows:
        values, vectors = np.linalg.eigh(rest[np.ix_(of, of)])
        root = vectors @ np.diag([v**-0.5 if v > 1e-6 else 0 for v in values]) @ vectors.T
        score = (bread @ design[of].T @ root)[0]
        meat += (score @ residual[of]) ** 2
        to_score.append(score @ rest[of])
    products = np.array(to_score) @ np.array(to_score).T
    freedom = np.trace(products) ** 2 / np.square(products).sum()
    return float(beta[0]), float(np.sqrt(meat)), float(freedom)


@pytest.mark.parametrize("other", [None, 1])
def test_it_is_cluster_robust_least_squares(other: int | None) -> None:
    codes, cluster, strata, x = _world()
    used = np.ones(len(codes), bool) if other is None else np.isin(codes, [0, other])
    contrast = Contrast(codes, 0, used, cluster, strata)
    found = contrast.differences(x)
    for column in range(4):
        value, error, freedom = _plain(
            (codes == 0)[used], cluster[used], strata[used], x[used, column].astype(float)
        )
        assert found.value[column] == pytest.approx(value, rel=1e-4)
        assert found.error[column] == pytest.approx(error, rel=1e-3)
        assert contrast.freedom <= freedom + 1e-6
    share = [(codes == 0)[used & (strata == s)].mean() for s in range(3)]
    size = [(used & (strata == s)).sum() for s in range(3)]
    effective = sum(n * p * (1 - p) for n, p in zip(size, share, strict=True))
    assert contrast.effective == pytest.approx(effective)


def test_p_is_bounded_by_the_ways_to_deal_the_clusters_out() -> None:
    codes, cluster, _, _ = _world()
    strata = 0 * codes
    x = (codes == 0)[:, None].astype(np.float32) + np.random.default_rng(0).normal(
        0, 1e-3, (len(codes), 1)
    ).astype(np.float32)
    contrast = Contrast(codes, 0, codes >= 0, cluster, strata)
    assert contrast.smallest_p == pytest.approx(2 / math.comb(18, 6))
    assert contrast.p_values(contrast.differences(x))[0] == pytest.approx(contrast.smallest_p)
    assert (contrast.inside_clusters, contrast.outside_clusters) == (6, 12)
    few = np.isin(cluster, [0, 1, 6, 7])
    assert not Contrast(codes, 0, few, cluster, strata).determined


def test_crossed_clusters_are_dealt_within() -> None:
    cluster, codes = np.repeat(np.arange(4), 6), np.tile(np.arange(6), 4)
    contrast = Contrast(codes, 2, codes >= 0, cluster, 0 * codes)
    assert contrast.smallest_p == pytest.approx(2 / 6**4)


def test_without_a_common_stratum_nothing_is_known() -> None:
    codes = np.repeat([0, 1], 6)
    contrast = Contrast(codes, 0, codes >= 0, np.arange(12), codes)
    found = contrast.differences(np.ones((12, 3), np.float32))
    assert np.isnan(found.value).all()
    assert (contrast.p_values(found) == 1).all()
    assert not contrast.determined


def test_what_never_differs_has_no_p() -> None:
    codes, cluster, strata, _ = _world()
    contrast = Contrast(codes, 0, codes >= 0, cluster, strata)
    found = contrast.differences(np.ones((len(codes), 1), np.float32))
    assert contrast.p_values(found)[0] > 0.9
