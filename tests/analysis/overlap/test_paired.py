"""The paired effect against sums written out, under no effect of type, and on the page."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from report_pages import FEW, SIX, stored, visible
from simulated import simulate

from sparcom.analysis.overlap.paired import Paired, paired_effect
from sparcom.analysis.stats.exchange import make_nodes
from sparcom.report.page import write_report
from sparcom.store import Run


def paired_of(values: np.ndarray, codes: np.ndarray, clusters: np.ndarray) -> Paired | None:
    nodes = make_nodes(codes, clusters, np.zeros_like(codes), np.full(len(codes), 9))
    return paired_effect(values, nodes, int(codes.max()) + 1, 199, 0)


def test_figures_are_means_over_pairs() -> None:
    """Two records of each type and passage; one passage lacks a type and is left out."""
    rng = np.random.default_rng(0)
    clusters, codes = (x.reshape(-1) for x in np.indices((5, 6)))
    clusters, codes = np.repeat(clusters, 2)[:-2], np.repeat(codes, 2)[:-2]
    values = rng.random((len(codes), len(codes)))
    values = (values + values.T) / 2
    found = paired_of(values, codes, clusters)
    assert found is not None
    means: dict[tuple[bool, bool], list[float]] = {}
    for i, j in combinations(np.flatnonzero(clusters < 4), 2):
        key = bool(codes[i] == codes[j]), bool(clusters[i] == clusters[j])
        means.setdefault(key, []).append(values[i, j])
    of = {key: np.mean(pairs) for key, pairs in means.items()}
    assert found.clusters == 4
    assert found.same_type.value == pytest.approx(of[True, False])
    assert found.different_type.value == pytest.approx(of[False, False])
    assert found.same_cluster.value == pytest.approx(of[False, True])
    assert found.paraphrase.value == pytest.approx(of[True, True])
    assert found.rewording.value == pytest.approx(of[True, True] - of[False, True])
    assert found.effect.value == pytest.approx(of[True, False] - of[False, False])


def test_content_alone_is_no_effect_of_type_and_type_is() -> None:
    """Passages of strong content: p is uniform without an effect of type; intervals cover 0."""
    rng = np.random.default_rng(1)
    p, inside = [], []
    for _ in range(60):
        world = simulate(rng, clusters=12, crossed=True, confounding=0.0)
        effect = paired_of(world.jaccard(60), world.codes, world.clusters).effect
        p.append(effect.p)
        inside.append(effect.low <= 0 <= effect.high)
    assert np.mean(np.array(p) <= 0.05) <= 0.12
    assert np.mean(np.array(p) <= 0.5) >= 0.3
    assert np.mean(inside) >= 0.88
    world = simulate(rng, clusters=12, crossed=True, confounding=0.0, category_effect=0.5)
    found = paired_of(world.jaccard(60), world.codes, world.clusters)
    assert found.effect.low > found.effect.chance_high
    assert found.effect.p == pytest.approx(1 / 200)


def test_too_few_or_no_crossed_clusters() -> None:
    values = np.random.default_rng(2).random((6, 6))
    codes = np.array([0, 1] * 3)
    found = paired_of(values + values.T, codes, np.repeat(np.arange(3), 2))
    assert (found.effect.low, found.effect.p) == (None, None)
    assert found.paraphrase.value is None
    assert paired_of(values, codes, np.arange(6)) is None


def test_the_page_says_it_first(tmp_path: Path) -> None:
    passages = [f"p{k // 6}" for k in range(60)]
    location = stored(tmp_path / "matched", SIX * 10, clusters=passages)
    text = visible(Path(write_report(location, FEW)).read_text())
    assert "over 10 clusters, such as passages, that hold every type" in text
    assert text.index("ISNs, paired:") < text.index("ISNs: the mean overlap of two instructions")
    rows = {row["figure"]: row for row in Run(location).table("paired").to_pylist()}
    assert f"a difference of {rows['paired effect']['value']:.3f}" in text
    assert "two of the same type from one cluster" not in text
    other = stored(tmp_path / "nested", SIX * 4)
    assert "paired:" not in visible(Path(write_report(other, FEW)).read_text())
    assert Run(other).table("paired").num_rows == 0
