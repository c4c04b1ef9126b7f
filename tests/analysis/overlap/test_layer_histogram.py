import numpy as np
from planted import dense_space, mixed_space
from scipy import stats

from sparcom.analysis.data.bitsets import pack
from sparcom.analysis.data.labels import Labels
from sparcom.analysis.data.sites import families, family_sites, site_sizes
from sparcom.analysis.overlap.layer_histogram import LayerHistogram, layer_histogram
from sparcom.components import ComponentSpace


def test_families_name_each_kind_only_where_there_are_several() -> None:
    assert families(dense_space()) == ("neurons",)
    assert families(mixed_space()) == ("neurons", "dense", "routed", "shared", "experts")


def test_sites_of_a_family_cover_its_index_in_order() -> None:
    space = mixed_space()
    for family, size in (("neurons", space.neurons), ("experts", space.experts)):
        parts = [site.part for site in family_sites(space, family)]
        covered = np.concatenate([np.arange(p.start, p.stop) for p in parts])
        np.testing.assert_array_equal(covered, np.arange(size))
    assert [s.width for s in family_sites(space, "routed")] == [45, 45]
    assert [s.layer for s in family_sites(space, "experts")] == [1, 2]


def _histogram(
    mask: np.ndarray, space: ComponentSpace, codes: np.ndarray, names: tuple[str, ...]
) -> LayerHistogram:
    sites = family_sites(space, "neurons")
    clusters = np.arange(len(codes)) // len(names) // 2  # two instructions of each category
    labels = Labels(
        ids=tuple(map(str, range(len(codes)))), categories=names, codes=codes, tokens=codes + 1,
        clusters=clusters, cluster_names=tuple(map(str, range(len(codes)))),
    )  # fmt: skip
    return layer_histogram(site_sizes(pack(mask), sites), sites, labels, "neurons")


def test_histogram_is_the_mean_number_of_components_per_site() -> None:
    space = mixed_space()
    mask = np.random.default_rng(0).random((20, space.neurons)) < 0.2
    codes = np.arange(20) % 2
    found = _histogram(mask, space, codes, ("a", "b"))
    for row in range(2):
        rows = mask[codes == row]
        for column, site in enumerate(family_sites(space, "neurons")):
            sizes = rows[:, site.part].sum(1)
            assert found.mean[row, column] == sizes.mean()
            means = sizes.reshape(5, 2).mean(1)  # clusters of equal size: t over their means
            half = stats.t.ppf(0.975, 4) * means.std(ddof=1) / np.sqrt(5)
            np.testing.assert_allclose(found.high[row, column], sizes.mean() + half)
    np.testing.assert_allclose(found.share.sum(1), 1)
    assert found.chance.sum() == 1
    assert found.table().num_rows == 2 * len(found.layers)


def test_empty_sets_and_single_instructions_have_shares_and_intervals_that_say_so() -> None:
    space = dense_space(2, 10)
    found = _histogram(np.zeros((1, 20), bool), space, np.zeros(1, int), ("a",))
    assert found.share.tolist() == [[0, 0]]
    assert found.table()["low"].null_count == 2


def test_three_clusters_give_no_interval() -> None:
    space = dense_space(2, 10)
    for instructions, missing in ((6, 2), (8, 0)):
        mask = np.random.default_rng(2).random((instructions, 20)) < 0.3
        found = _histogram(mask, space, np.zeros(instructions, int), ("a",))
        assert found.table()["low"].null_count == missing


def test_site_sizes_sum_to_the_size_of_the_set() -> None:
    space = mixed_space()
    mask = np.random.default_rng(1).random((6, space.neurons)) < 0.5
    sizes = site_sizes(pack(mask), family_sites(space, "neurons"))
    np.testing.assert_array_equal(sizes.sum(1), mask.sum(1))
