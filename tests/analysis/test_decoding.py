"""Decoding agrees with plain NumPy, and holds its level in worlds without an effect."""

from pathlib import Path

import numpy as np
import pytest
from planted import CATEGORIES, dense_space, draw_sets, planted_prevalence, write_run
from simulated import World, simulate

from sparcom.analysis.analyse import analyse
from sparcom.analysis.data.frequencies import Frequencies
from sparcom.analysis.data.labels import Labels
from sparcom.analysis.data.strata import Strata
from sparcom.analysis.decoding import (
    Decoding,
    balanced_accuracy,
    cluster_folds,
    decode,
    frequency_kernel,
    nuisances,
)
from sparcom.analysis.options import AnalysisOptions

NULLS = {
    "length goes with category": {},
    "four clusters": {"clusters": 4},
    "two large clusters": {"clusters": 2, "size": 12},
    "matched passages": {"clusters": 20, "crossed": True, "confounding": 0.0},
}


def decoded(world: World, seed: int, draws: int = 99) -> Decoding:
    """What the sets of a world's 30 most frequent neurons tell."""
    labels = Labels(
        ids=tuple(str(i) for i in range(len(world.codes))),
        categories=CATEGORIES,
        codes=world.codes,
        tokens=world.tokens,
        clusters=world.clusters,
        cluster_names=tuple(str(k) for k in range(world.clusters.max() + 1)),
    )
    bins = int(world.strata.max()) + 1
    strata = Strata(
        sources=("ai",), source=np.zeros(bins, np.int64), length=np.arange(bins), codes=world.strata
    )
    options = AnalysisOptions(small_draws=draws, seed=seed)
    return decode(world.jaccard(30), labels, strata, options)


def level(null: dict, repeats: int, seed: int) -> tuple[float, float, float]:
    """(share of p <= 0.05, mean balanced accuracy, mean of its null) of worlds without effect."""
    rng = np.random.default_rng(seed)
    found = [decoded(simulate(rng, **null), k).accuracy for k in range(repeats)]
    small = float(np.mean([one.p <= 0.05 for one in found]))
    return small, *(float(np.mean([getattr(o, f) for o in found])) for f in ("value", "chance"))


def test_without_an_effect_accuracy_is_at_chance() -> None:
    small, value, chance = level({"clusters": 4}, 20, 0)
    assert small <= 0.2
    assert value == pytest.approx(chance, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("name", NULLS)
def test_the_level_is_five_per_cent(name: str) -> None:
    """Of 600 data sets that share templates but no effect, 3 to 7 % have p <= 0.05."""
    small, value, chance = level(NULLS[name], 600, 1)
    assert 0.03 <= small <= 0.07
    assert value == pytest.approx(chance, abs=0.02)
    assert chance == pytest.approx(1 / 6, abs=0.06)


def test_a_planted_effect_is_decoded() -> None:
    rng = np.random.default_rng(0)
    for seed in range(3):
        found = decoded(simulate(rng, category_effect=0.8), seed)
        assert found.accuracy.value > 0.9
        assert found.accuracy.p == 0.01
        assert found.accuracy.low is None  # overlapping training sets bear no interval


def test_length_alone_decodes_nothing() -> None:
    """Features that are log T, where category follows length: chance, since length is held."""
    rng = np.random.default_rng(0)
    world = simulate(rng, confounding=2.0)
    length = np.log(world.tokens)[:, None] + rng.normal(0, 0.01, (len(world.codes), 40))
    folds = cluster_folds(world.clusters, 0)
    free = np.ones((len(length), 1))
    held = nuisances(0 * world.codes, world.tokens)
    kernel = length @ length.T
    assert balanced_accuracy(kernel, free, world.codes[None], 6, folds)[0] > 0.28
    assert balanced_accuracy(kernel, held, world.codes[None], 6, folds)[0] < 0.25


def test_accuracy_is_that_of_ridge_regression_on_features() -> None:
    """Plain NumPy: features less nuisances and mean, a ridge on 1 / share, the highest score."""
    rng = np.random.default_rng(1)
    features, codes = rng.normal(0, 1, (60, 200)), np.arange(60) % 3
    features[:, :3] += 3 * (codes[:, None] == np.arange(3))
    clusters, tokens = np.arange(60) // 2, rng.integers(5, 90, 60)
    design = nuisances(clusters % 2, tokens)
    folds = cluster_folds(clusters, 0)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(60))
    named = np.full(60, -1)
    for train, test in folds:
        assert not set(clusters[train]) & set(clusters[test])
        weights = np.linalg.lstsq(design[train], features[train], rcond=None)[0]
        left = features - design @ weights
        left -= left[train].mean(0)
        known = left[train]
        target = (codes[train, None] == np.arange(3)) / np.bincount(codes[train])
        penalty = np.square(known).sum() / len(train)
        slope = np.linalg.solve(known.T @ known + penalty * np.eye(200), known.T @ target)
        named[test] = (left[test] @ slope).argmax(1)
    expected = np.mean([(named[codes == c] == c).mean() for c in range(3)])
    found = balanced_accuracy(features @ features.T, design, codes[None], 3, folds)
    assert found[0] == pytest.approx(expected)
    assert 0.4 < expected < 1


def test_the_frequency_kernel_is_that_of_all_components() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 50, 12)
    counts = rng.integers(0, 5, (12, 9000)).astype(np.uint16)
    frequencies = Frequencies(rows=np.arange(12), counts=counts, tokens=tokens)
    rows = np.array([0, 3, 7, 11])
    p = counts[rows] / tokens[rows, None]
    p -= p.mean(0)
    np.testing.assert_allclose(frequency_kernel(frequencies, rows), p @ p.T, rtol=1e-3, atol=1e-3)


def test_of_very_many_components_a_sample_gives_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (10, 6000)).astype(np.uint16)
    frequencies = Frequencies(rows=np.arange(10), counts=counts, tokens=np.full(10, 8))
    whole = frequency_kernel(frequencies, np.arange(10))
    monkeypatch.setattr("sparcom.analysis.decoding.MOST_COMPONENTS", 3000)
    half = frequency_kernel(frequencies, np.arange(10))
    np.testing.assert_allclose(2 * half, whole, atol=0.1 * np.diagonal(whole).mean())
    assert not np.allclose(half, whole, rtol=0.2)


def test_too_few_clusters_bear_no_claim() -> None:
    world = simulate(np.random.default_rng(0), clusters=2, size=9)
    kept = np.flatnonzero(world.codes < 2)
    few = world.take(kept)
    found = decoded(few, 0)
    assert found.clusters == 4
    assert found.accuracy.value is not None
    assert found.accuracy.p is None
    one = World(frequency=few.frequency, codes=few.codes, clusters=few.codes, tokens=few.tokens)
    assert decoded(one, 0).accuracy.value is None


def test_a_run_has_a_table_of_it(tmp_path: Path) -> None:
    codes = np.arange(120) % 6
    prevalence = planted_prevalence(CATEGORIES, 600)
    mask = draw_sets(prevalence, codes, np.random.default_rng(0))
    labels = [CATEGORIES[code] for code in codes]
    options = AnalysisOptions(permutations=19, bootstraps=19, small_draws=99)
    for retain, features in (
        ("counts", ["sets", "frequencies", "tokens"]),
        ("sets", ["sets", "tokens"]),
        ("profile", None),
    ):
        run = write_run(tmp_path / retain, mask, labels, dense_space(), retain=retain)
        tables = analyse(run, options).tables
        if features is None:
            assert "decoding" not in tables
            continue
        rows = tables["decoding"].to_pylist()
        assert [row["features"] for row in rows] == features
        assert all(row["p"] == 0.01 and row["value"] > 0.6 for row in rows[:-1])
        assert rows[-1]["value"] < 0.4  # the tokens are the same for all categories
