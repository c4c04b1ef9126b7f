import numpy as np
import pytest
from planted import draw_sets, planted_prevalence

from sparcom.analysis.data.bitsets import intersections, pack
from sparcom.analysis.overlap.measures import pair_matrix
from sparcom.analysis.overlap.reliability import (
    _correlations,
    _halved_codes,
    spearman_brown,
    split_half,
)
from sparcom.analysis.stats.exchange import make_nodes


def _run(mask: np.ndarray, codes: np.ndarray, draws: int = 50, clusters: np.ndarray | None = None):
    inter = intersections(pack(mask))
    clusters = np.arange(len(codes)) if clusters is None else clusters
    nodes = make_nodes(codes, clusters, 0 * codes, 0 * codes + 9)
    return split_half(
        inter, pair_matrix(inter), nodes, ("a", "b", "c"), mask.shape[1],
        draws=draws, rng=np.random.default_rng(0),
    )  # fmt: skip


def test_correlations_are_those_of_the_prevalences() -> None:
    rng = np.random.default_rng(0)
    codes = np.arange(45) % 3
    mask = rng.random((45, 80)) < rng.random(80)
    halves = _halved_codes(codes, np.arange(45), np.arange(3), 4, rng)
    found = _correlations(intersections(pack(mask)).astype(float), halves, 6, 80)
    for draw, labels in enumerate(halves):
        assert np.bincount(labels).tolist() == [8, 7, 8, 7, 8, 7]
        q = np.stack([mask[labels == group].mean(0) for group in range(6)])
        expected = np.corrcoef(q)[0::2, 1::2]
        np.testing.assert_allclose(found[draw], expected, rtol=1e-9)


def test_planted_categories_are_reliable_and_apart() -> None:
    codes = np.arange(180) % 3
    q = planted_prevalence(("a", "b", "c"), 400, general=0, unique=80)
    found = _run(draw_sets(q, codes, np.random.default_rng(0)), codes)
    for figure in found.prevalence:
        assert figure.value > 0.9
        assert figure.value > figure.chance + 0.3
    np.testing.assert_allclose(np.diagonal(found.between), 1)
    assert found.between[0, 1] < 0.5
    assert found.matrix.value > 0.9


def test_labels_without_meaning_are_as_reliable_across_as_within() -> None:
    rng = np.random.default_rng(0)
    codes = np.arange(180) % 3
    mask = rng.random((180, 400)) < rng.beta(0.3, 3, 400)
    found = _run(mask, codes)
    whole = np.corrcoef([mask[codes == c].mean(0) for c in range(3)])
    for c, figure in enumerate(found.prevalence):
        assert figure.value == pytest.approx(figure.chance, abs=0.03)
        assert figure.chance == pytest.approx(np.delete(whole[c], c).mean())
    assert found.between[0, 1] == pytest.approx(1, abs=0.03)


def test_small_categories_are_left_out() -> None:
    mask = np.random.default_rng(0).random((11, 40)) < 0.4
    codes = np.array([0] * 5 + [1] * 5 + [2])
    assert _run(mask, codes).categories == ("a", "b")
    assert _run(mask[:6], np.arange(6) % 3) is None


def test_a_cluster_is_never_halved() -> None:
    codes, clusters = np.repeat(np.arange(3), 12), np.arange(36) // 2
    halves = _halved_codes(codes, clusters, np.arange(3), 20, np.random.default_rng(0))
    assert (halves[:, ::2] == halves[:, 1::2]).all()
    one = np.repeat(np.arange(9), 4)  # three clusters in each category
    assert _run(np.eye(36, 40, dtype=bool), codes, clusters=one) is None


def test_spearman_brown() -> None:
    np.testing.assert_allclose(spearman_brown(np.array([0.0, 0.5, 1.0])), [0, 2 / 3, 1])
    np.testing.assert_allclose(spearman_brown(np.array([-1.0, -0.5])), [-1, -2 / 3])


def test_the_matrix_has_the_chance_level_of_permuted_labels() -> None:
    rng, codes = np.random.default_rng(0), np.arange(180) % 3
    planted = _run(draw_sets(planted_prevalence(("a", "b", "c"), 400), codes, rng), codes).matrix
    assert planted.value > planted.chance_high
    assert planted.p is None
    null = _run(rng.random((180, 400)) < rng.beta(0.3, 3, 400), codes).matrix
    assert null.chance_low < null.value < null.chance_high
