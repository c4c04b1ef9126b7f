"""The pair regression against ordinary least squares on the list of pairs."""

import numpy as np
import pytest

from sparcom.analysis.overlap.pair_design import PairDesign, dyadic_error
from sparcom.analysis.stats.exchange import Nodes, make_nodes

N = 48


def _world(
    seed: int = 0, crossed: bool = False
) -> tuple[Nodes, np.ndarray, np.ndarray, np.ndarray]:
    """(nodes, strata, values, covariate)."""
    rng = np.random.default_rng(seed)
    cluster = np.arange(N) // 3
    codes = np.arange(N) % 3 if crossed else cluster // 6
    values, covariate = (rng.random((N, N)) for _ in range(2))
    values, covariate = values + values.T, covariate + covariate.T
    values += 0.7 * covariate + 0.3 * (codes[:, None] == codes)
    nodes = make_nodes(codes, cluster, 0 * codes, rng.integers(5, 50, N))
    return nodes, rng.integers(0, 4, N), values, covariate


def _regression(
    codes: np.ndarray, nodes: Nodes, strata: np.ndarray, values: np.ndarray, covariate: np.ndarray
) -> float:
    """The coefficient of "same type" by least squares, one row for each pair of two clusters."""
    cluster = nodes.cluster[nodes.node]
    rows = [(i, k) for i in range(N) for k in range(i) if cluster[i] != cluster[k]]
    i, k = np.array(rows).T
    first, second = np.minimum(strata[i], strata[k]), np.maximum(strata[i], strata[k])
    groups = np.unique(first * 10 + second, return_inverse=True)[1]
    x = np.column_stack(
        [codes[i] == codes[k], covariate[i, k], groups[:, None] == np.arange(groups.max() + 1)]
    ).astype(float)
    return float(np.linalg.lstsq(x, values[i, k], rcond=None)[0][0])


@pytest.mark.parametrize("crossed", [False, True])
def test_it_is_least_squares_for_the_labels_and_for_every_relabelling(crossed: bool) -> None:
    nodes, strata, values, covariate = _world(crossed=crossed)
    permuted = nodes.permuted(4, np.random.default_rng(1))
    found = PairDesign(nodes, strata, permuted, [covariate]).effects(values)
    own = _regression(nodes.category[nodes.node], nodes, strata, values, covariate)
    assert found.value == pytest.approx(own, rel=1e-4)
    assert found.value == pytest.approx(0.3, abs=0.1)
    for value, labels in zip(found.null, permuted, strict=True):
        again = _regression(labels[nodes.node], nodes, strata, values, covariate)
        assert value == pytest.approx(again, rel=1e-3, abs=1e-4)


def test_only_allowed_pairs_of_strata_take_part() -> None:
    nodes, strata, values, _ = _world()
    allowed = np.zeros((4, 4), bool)
    allowed[0, 1] = allowed[1, 0] = True
    changed = values.copy()
    far = ~allowed[strata][:, strata]
    changed[far] = 99.0
    designs = [PairDesign(nodes, strata, nodes.category[None], [], allowed) for _ in range(2)]
    first, second = (d.effects(v) for d, v in zip(designs, (values, changed), strict=True))
    assert first.value == pytest.approx(second.value)


def test_pairs_within_a_cluster_say_nothing() -> None:
    nodes, strata, values, _ = _world()
    cluster = nodes.cluster[nodes.node]
    alike = np.where(cluster[:, None] == cluster, 50.0, values)
    design = PairDesign(nodes, strata, nodes.category[None])
    assert design.effects(alike).value == pytest.approx(design.effects(values).value)
    assert design.mean(alike) == pytest.approx(values[cluster[:, None] != cluster].mean())


def test_a_covariate_that_strata_explain_changes_nothing() -> None:
    nodes, strata, values, _ = _world()
    known = np.add.outer(strata, strata).astype(float)
    plain = PairDesign(nodes, strata, nodes.category[None]).effects(values)
    more = PairDesign(nodes, strata, nodes.category[None], [known]).effects(values)
    assert more.value == pytest.approx(plain.value, rel=1e-5)


def test_cells_are_means_over_pairs_of_two_clusters() -> None:
    nodes, strata, values, _ = _world()
    mean, null = PairDesign(nodes, strata, nodes.category[None]).cell_means(values)
    codes, cluster = nodes.category[nodes.node], nodes.cluster[nodes.node]
    apart = cluster[:, None] != cluster
    for a in range(3):
        for b in range(3):
            block = (codes[:, None] == a) & (codes == b) & apart
            expected = values[block].mean() if block.any() else np.nan
            np.testing.assert_allclose([mean[a, b], null[0, a, b]], expected, rtol=1e-5)


def test_strata_of_one_category_each_leave_no_effect() -> None:
    nodes, _, values, _ = _world()
    codes = nodes.category[nodes.node]
    design = PairDesign(nodes, codes, nodes.category[None])
    assert np.isnan(design.effects(values).value)
    assert design.informative == 0


def test_the_error_is_that_of_a_mean_over_pairs() -> None:
    """Pairs a_k + a_l: the mean over pairs of 30 clusters has the error 2 sd / sqrt(30)."""
    rng, errors = np.random.default_rng(0), []
    for _ in range(300):
        a = rng.normal(0, 1, 30)
        pairs = np.add.outer(a, a)
        np.fill_diagonal(pairs, 0)
        errors.append(dyadic_error(pairs / (30 * 29 / 2), np.zeros(30, int))[0])
    assert np.mean(errors) == pytest.approx(2 / np.sqrt(30), rel=0.05)


def test_the_error_of_what_is_of_pairs_alone_is_not_counted_twice() -> None:
    rng, errors = np.random.default_rng(0), []
    for _ in range(100):
        noise = np.triu(rng.normal(0, 1, (30, 30)), 1)
        errors.append(dyadic_error((noise + noise.T) / 435, np.zeros(30, int))[0])
    assert np.mean(errors) == pytest.approx(1 / np.sqrt(435), rel=0.1)


def test_one_cluster_in_a_category_has_no_error() -> None:
    assert np.isnan(dyadic_error(np.ones((3, 3)), np.array([0, 0, 1]))[0])
