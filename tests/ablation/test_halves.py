"""Clusters in two halves, and targets found on each."""

from pathlib import Path

import numpy as np
import pytest
from planted import dense_space, write_run

from sparcom.ablation.halves import split_clusters, usage_of_halves
from sparcom.ablation.measures import Answered, choose
from sparcom.ablation.target import Usage, targets
from sparcom.corpus.schema import Instruction
from sparcom.errors import InputError


@pytest.mark.parametrize("seed", range(20))
def test_clusters_stay_whole_and_categories_are_halved(seed: int) -> None:
    rng = np.random.default_rng(seed)
    categories = rng.choice(["A", "B", "C"], 300)
    clusters = [f"{c}/{k}" for c, k in zip(categories, rng.geometric(0.2, 300), strict=True)]
    half = split_clusters(clusters, categories, rng)
    of = dict(zip(clusters, half, strict=True))
    np.testing.assert_array_equal(half, [of[cluster] for cluster in clusters])
    for name in "ABC":
        assert 0.3 <= half[categories == name].mean() <= 0.7


def test_clusters_that_span_categories_go_to_one_half() -> None:
    passages = np.repeat([f"p{k}" for k in range(10)], 6)
    half = split_clusters(passages, list("ABCDEF") * 10, np.random.default_rng(0))
    assert half.reshape(10, 6).sum(1).tolist().count(6) == 5
    two = split_clusters(["x", "x", "y"], ["A"] * 3, np.random.default_rng(1))
    assert set(two.tolist()) == {0, 1}


def test_usage_is_of_each_half_alone(tmp_path: Path) -> None:
    rng, space = np.random.default_rng(1), dense_space()
    neurons, labels = rng.random((24, space.neurons)) < 0.3, ["QA", "SUM"] * 12
    run = write_run(tmp_path / "run", neurons, labels, space)
    half = rng.integers(2, size=24)
    order = [int(name.rpartition("-")[2]) for name in run.labels["id"].to_pylist()]
    for h, found in enumerate(usage_of_halves(run, "neurons", half, "prevalence")):
        for c, name in enumerate(run.categories):
            rows = [k for k, at in zip(order, half, strict=True) if at == h and labels[k] == name]
            np.testing.assert_allclose(found.values[c], neurons[rows].mean(0))


def test_scored_instructions_take_turns_over_clusters() -> None:
    items = tuple(Instruction(f"i{k}", "A", instruction="x", reference="y") for k in range(12))
    clusters = np.array(["a"] * 5 + ["b", "c"] + ["d"] * 4 + ["e"])
    half = np.array([0] * 7 + [1] * 5)
    known = Answered(items, ("A",), np.zeros(12, np.int64), half, clusters)
    assert choose(known, 6).tolist() == [0, 5, 6, 7, 8, 11]
    assert choose(known, 5).tolist() == [0, 5, 6, 7, 11]
    assert choose(known, None).tolist() == list(range(12))


CATEGORIES = ("A", "B", "C")


def halves(first: list[list[float]], second: list[list[float]]):
    return lambda measure: (Usage(CATEGORIES, np.array(first)), Usage(CATEGORIES, np.array(second)))


def found(word: str, first: list[list[float]], second: list[list[float]], categories=CATEGORIES):
    space = dense_space()
    made = targets((word,), space, "neurons", halves(first, second), categories, high=0.5, low=0.1)
    return {t.name: [one.index.tolist() for one in t.found] for t in made}


FIRST = [[0.9, 0.8, 0.7, 0, 0.6], [0, 0, 0.1, 0.9, 0.6], [0, 0.1, 0.2, 0, 0.7]]
SECOND = [[0.9, 0, 0.7, 0.8, 0.6], [0, 0.9, 0, 0, 0.9], [0, 0, 0, 0, 0.5]]


def test_editions_are_of_one_size_the_strongest_kept() -> None:
    assert found("specific:3:A", FIRST, SECOND) == {"specific:3:A": [[0, 1, 2], [0, 2, 3]]}
    each = found("specific:3", FIRST, SECOND, ("A", "B"))
    assert each == {"specific:3:A": [[0], [0]], "specific:3:B": [[3], [1]]}
    assert found("general", FIRST, SECOND) == {"general": [[4], [4]]}
    assert found("unique:A", FIRST, SECOND) == {"unique:A": [[0, 1], [0, 3]]}
    assert found("top:2", FIRST, SECOND) == {"top:2": [[2, 4], [0, 4]]}


def test_unique_leaves_out_categories_without_any() -> None:
    assert list(found("unique", FIRST, SECOND)) == ["unique:A", "unique:B"]


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="'unique:C' is empty in this run, or in half of"):
        found("unique:C", FIRST, SECOND)
    with pytest.raises(InputError, match="B has one cluster with reference answers"):
        found("specific:2:B", FIRST, SECOND, ("A", "C"))


def test_a_profile_has_no_halves(tmp_path: Path) -> None:
    space = dense_space()
    neurons = np.ones((6, space.neurons), bool)
    run = write_run(tmp_path / "run", neurons, ["QA", "SUM"] * 3, space, retain="profile")
    with pytest.raises(InputError, match="keeps its profile only"):
        usage_of_halves(run, "neurons", np.zeros(6, np.int64), "prevalence")
