"""Cross-fit: clusters fall into two halves; what is found on one is scored on the other."""

from collections.abc import Sequence

import numpy as np

from sparcom.ablation.target import Usage
from sparcom.attribution.sums import Attribution, of_experts
from sparcom.errors import InputError
from sparcom.store import Run


def split_clusters(
    clusters: Sequence[str], categories: Sequence[str], rng: np.random.Generator
) -> np.ndarray:
    """[n] int64: the half, 0 or 1, of each instruction; those of a cluster share one.

    Clusters come in random order, the largest first, and each goes where its categories have fewer
    instructions so far, so that every category of two clusters or more is in both halves.
    clusters, categories: [n].
    """
    _, codes = np.unique(categories, return_inverse=True)
    names, at = np.unique(clusters, return_inverse=True)
    sizes = np.zeros((len(names), codes.max(initial=0) + 1), np.int64)
    np.add.at(sizes, (at, codes), 1)
    order = rng.permutation(len(names))
    order = order[np.argsort(-sizes[order].sum(1), kind="stable")]
    filled, half = np.zeros((2, sizes.shape[1])), np.zeros(len(names), np.int64)
    for cluster in order:
        load = filled @ sizes[cluster]
        half[cluster] = rng.integers(2) if load[0] == load[1] else int(load[1] < load[0])
        filled[half[cluster]] += sizes[cluster]
    return half[at]


def usage_of_halves(run: Run, family: str, half: np.ndarray, measure: str) -> tuple[Usage, Usage]:
    """A measure of a family in each half of a run's instructions.

    half: [n] of the instructions in `run.labels`. measure: "prevalence", from stored sets, or a
    rule of attribution, from what `sparcom attribute` has stored.
    Raises InputError if the run keeps no sets, or no such attribution.
    """
    if measure == "prevalence":
        return _prevalence(run, family, half)
    stored = Attribution(run)
    half_of = dict(zip(run.labels["cluster"].to_pylist(), half.tolist(), strict=True))
    names = run.categories
    group = np.array([
        half_of[cluster] * len(names) + names.index(name)
        for name, cluster in zip(stored.categories, stored.clusters, strict=True)
    ])  # fmt: skip
    total = stored.sums(measure, group, 2 * len(names))
    count = np.bincount(group, stored.instructions, 2 * len(names))
    if family == "experts":
        total = of_experts(run.space, total)
    means = np.full(total.shape, np.nan)
    np.divide(total, count[:, None], out=means, where=count[:, None] > 0)
    return Usage(names, means[: len(names)]), Usage(names, means[len(names) :])


def _prevalence(run: Run, family: str, half: np.ndarray) -> tuple[Usage, Usage]:
    if not run.store.results.parts("sets"):
        raise InputError(
            f"ablate: {run.store.location} keeps its profile only, so nothing can be found on half "
            "of its clusters; count with --retain sets, or give a list (--target list.csv)"
        )
    ids = dict(zip(run.labels["id"].to_pylist(), half, strict=True))
    category_of = dict(zip(ids, run.labels["category"].to_pylist(), strict=True))
    components = run.space.neurons if family == "neurons" else run.space.experts
    held = np.zeros((2, len(run.categories), components))
    count = np.zeros((2, len(run.categories), 1))
    for _, sets in run.store.results.sets(run.space):
        for row, name in enumerate(sets.ids):
            at = ids[name], run.categories.index(category_of[name])
            members = sets.indices(row) if family == "neurons" else sets.expert_indices(row)
            held[at][members] += 1
            count[at] += 1
    shares = held / np.maximum(count, 1)
    first, second = (Usage(run.categories, one) for one in shares)
    return first, second
