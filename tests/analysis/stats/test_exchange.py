import math

import numpy as np
import pytest

from sparcom.analysis.stats.exchange import CLASS, Nodes, make_nodes


def _nested(categories: int, clusters: int, size: int = 3) -> Nodes:
    cluster = np.repeat(np.arange(categories * clusters), size)
    tokens = np.exp(np.random.default_rng(0).normal(4, 1, len(cluster))).astype(int) + 1
    return make_nodes(cluster // clusters, cluster, 0 * cluster, tokens)


def test_a_nested_cluster_moves_as_a_whole_among_those_of_like_length() -> None:
    nodes = _nested(6, 12)
    assert len(nodes.category) == 72
    assert not nodes.crossed.any()
    assert np.bincount(np.unique(nodes.group, return_inverse=True)[1]).tolist() == [CLASS] * 9
    draws = nodes.permuted(50, np.random.default_rng(1))
    assert (draws != nodes.category).any()
    for group in np.unique(nodes.group):
        rows = nodes.group == group
        for draw in draws:
            assert sorted(draw[rows]) == sorted(nodes.category[rows])


def test_classes_are_ordered_by_length_and_sources_do_not_mix() -> None:
    cluster = np.arange(60)
    tokens, source = cluster + 10, cluster % 2
    nodes = make_nodes(cluster % 3, cluster, source, tokens)
    at = nodes.node  # of each instruction
    for group in np.unique(nodes.group):
        rows = np.flatnonzero(nodes.group[at] == group)
        assert len(np.unique(source[rows])) == 1
        alike = np.flatnonzero(source == source[rows[0]])
        between = alike[
            (tokens[alike] >= tokens[rows].min()) & (tokens[alike] <= tokens[rows].max())
        ]
        assert between.tolist() == rows.tolist()


def test_in_a_crossed_cluster_labels_are_exchanged_within() -> None:
    cluster, codes = np.repeat(np.arange(5), 6), np.tile(np.arange(6), 5)
    nodes = make_nodes(codes, cluster, 0 * codes, 0 * codes + 9)
    assert nodes.crossed.all()
    assert len(np.unique(nodes.group)) == 5
    assert nodes.relabellings == pytest.approx(math.factorial(6) ** 4)
    assert nodes.clusters_of(6).tolist() == [5] * 6
    assert (nodes.drawn_from == -1).all()


@pytest.mark.parametrize(
    ("categories", "clusters", "partitions"), [(2, 2, 3), (2, 3, 10), (6, 2, 10395), (3, 1, 1)]
)
def test_partitions_are_counted_without_the_names_of_the_categories(
    categories: int, clusters: int, partitions: int
) -> None:
    nodes = _nested(categories, clusters)
    assert nodes.relabellings == pytest.approx(partitions)
    assert nodes.enough == (partitions >= 20)


def test_one_collection_can_show_nothing() -> None:
    codes = np.repeat([0, 1], 10)
    nodes = make_nodes(codes, codes, 0 * codes, codes + 9)
    assert not nodes.enough


def test_some_instructions_have_some_of_the_nodes() -> None:
    nodes = _nested(3, 4)
    rows = np.flatnonzero(nodes.category[nodes.node] == 1)
    taken, kept = nodes.take(rows)
    assert len(taken.category) == len(kept) == 4
    np.testing.assert_array_equal(kept[taken.node], nodes.node[rows])
    assert (taken.category == 1).all()
