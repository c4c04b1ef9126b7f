"""Decoding: how well the category of an instruction follows from its sets, clusters held out.

A kernel ridge classifier (scikit-learn) learns the categories of four fifths of the clusters and
names those of the last fifth. It acts on one of three kernels, each [n, n]:

    sets         Jaccard of the sets
    frequencies  x . y of c / T, of all components (a sample of very many)
    tokens       Jaccard of the counted token ids: what the words alone say

Source and a cubic in log T, fitted to the training rows, are taken out of every kernel, so that
length and source decode nothing. The figure is the balanced accuracy, the mean over categories of
the share that is named right. Folds and kernels know no labels, so relabelled nodes
(`stats.exchange`) give its null. There is no interval: the training sets of the folds overlap, and
their variance has no unbiased estimate (Bengio and Grandvalet 2004).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import KernelCenterer

from sparcom.analysis.data.bitsets import intersections
from sparcom.analysis.data.frequencies import Frequencies
from sparcom.analysis.data.labels import Labels
from sparcom.analysis.data.load import Loaded
from sparcom.analysis.data.strata import Strata
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.overlap.measures import pair_matrix
from sparcom.analysis.stats.estimate import Estimate, estimate, estimate_table
from sparcom.analysis.stats.exchange import make_nodes
from sparcom.analysis.stats.multiple import max_statistic

FOLDS = 5
MOST_COMPONENTS = 65_536
"""The frequencies of so many components, drawn at random, give the kernel of larger models."""

Fold = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """What one kernel tells.

    family: "neurons", "experts", or "" for tokens; features: "sets", "frequencies" or "tokens".
    categories, clusters, instructions: how many it rests on; categories of one cluster are left
        out, since nothing of them is learned while it is held out.
    accuracy: balanced; None without two categories; no null if clusters do not suffice.
    null: [draws] of it.
    """

    family: str
    features: str
    categories: int
    clusters: int
    instructions: int
    accuracy: Estimate
    null: np.ndarray


def decodings(
    loaded: Loaded, frequencies: Mapping[str, Frequencies], options: AnalysisOptions
) -> tuple[Decoding, ...]:
    """Every kernel of a run, on the same instructions; none if it retains no sets.

    The instructions are those whose pairs are taken and, with counts, whose frequencies are read.
    All kernels are relabelled alike; p is corrected by the largest of them.
    """
    rows = loaded.sample
    for found in frequencies.values():
        rows = np.intersect1d(rows, found.rows)
    if not loaded.bits or not len(rows):
        return ()
    place = np.searchsorted(loaded.sample, rows)
    labels, strata = loaded.labels.take(rows), loaded.strata.take(rows)
    kernels = {(name, "sets"): set_kernel(bits[place]) for name, bits in loaded.bits.items()}
    for name, found in frequencies.items():
        at = np.searchsorted(found.rows, rows)
        kernels[name, "frequencies"] = frequency_kernel(found, at, options.seed)
    kernels["", "tokens"] = token_kernel(loaded.lexical[np.ix_(place, place)])
    return _corrected(
        [
            decode(kernel, labels, strata, options, family=family, features=features)
            for (family, features), kernel in kernels.items()
        ]
    )


def _corrected(found: Sequence[Decoding]) -> tuple[Decoding, ...]:
    """The same with p of all kernels together."""
    known = [one for one in found if one.accuracy.p is not None]
    if not known:
        return tuple(found)
    values = np.array([one.accuracy.value for one in known], np.float64)
    p = max_statistic(values, np.stack([one.null for one in known], 1), two_sided=False)
    of = {id(one): float(x) if np.isfinite(x) else None for one, x in zip(known, p, strict=True)}
    return tuple(replace(one, accuracy=replace(one.accuracy, p=of.get(id(one)))) for one in found)


def set_kernel(bits: np.ndarray) -> np.ndarray:
    """[n, n] float64: Jaccard of packed sets [n, bytes], 1 of a set with itself."""
    return _with_ones(pair_matrix(intersections(bits)))


def token_kernel(lexical: np.ndarray) -> np.ndarray:
    """[n, n] float64: Jaccard of token ids, 1 of an instruction with itself."""
    return _with_ones(lexical.astype(np.float64))


def _with_ones(kernel: np.ndarray) -> np.ndarray:
    out = kernel.copy()
    np.fill_diagonal(out, 1.0)
    return out


def frequency_kernel(frequencies: Frequencies, rows: np.ndarray, seed: int = 0) -> np.ndarray:
    """[k, k] float64: products of c / T, less each component's mean, a few components at a time.

    Of more than `MOST_COMPONENTS`, a sample is taken, which knows no labels.
    """
    counts, every = frequencies.counts, frequencies.counts.shape[1]
    if every > MOST_COMPONENTS:
        chosen = np.random.default_rng(seed).choice(every, MOST_COMPONENTS, replace=False)
        counts = counts[:, np.sort(chosen)]
    sample = replace(frequencies, counts=counts)
    out = np.zeros((len(rows), len(rows)))
    for block in sample.chunks(rows):
        block -= block.mean(0)
        out += block @ block.T
    return out


def decode(
    kernel: np.ndarray,
    labels: Labels,
    strata: Strata,
    options: AnalysisOptions,
    *,
    family: str = "",
    features: str = "",
) -> Decoding:
    """The balanced accuracy of one kernel [n, n], with the null of `small_draws` relabellings."""
    nodes = make_nodes(labels.codes, labels.clusters, strata.sources_of, labels.tokens)
    several = nodes.clusters_of(len(labels.categories)) > 1
    rows = np.flatnonzero(several[labels.codes])
    clusters = len(np.unique(nodes.cluster[nodes.node[rows]]))
    accuracy, null = Estimate(None), np.zeros(0)
    if several.sum() > 1:
        taken = nodes.take(rows)[0]
        relabelled = taken.permuted(options.small_draws if taken.enough else 0,
                                    np.random.default_rng(options.seed))  # fmt: skip
        every = np.concatenate([taken.category[None], relabelled])[:, taken.node]
        design = nuisances(strata.sources_of[rows], labels.tokens[rows])
        folds = cluster_folds(taken.cluster[taken.node], options.seed)
        found = balanced_accuracy(
            kernel[np.ix_(rows, rows)], design, every, len(labels.categories), folds
        )
        accuracy, null = estimate(found[0], null=found[1:]), found[1:]
    return Decoding(
        family=family,
        features=features,
        categories=int(several.sum()),
        clusters=clusters,
        instructions=len(rows),
        accuracy=accuracy,
        null=null,
    )


def nuisances(sources: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """[n, sources + 3] float64: what may not decode: the source, and log T to the third power."""
    length = np.log(np.maximum(tokens, 1))
    length = length - length.mean()
    powers = np.column_stack([length, length**2, length**3])
    return np.column_stack([(sources[:, None] == np.unique(sources)) * 1.0, powers])


def without(kernel: np.ndarray, design: np.ndarray, train: np.ndarray) -> np.ndarray:
    """[n, n] the kernel of features less what a regression on the design explains of them.

    kernel: [n, n]; design: [n, columns]; train: the rows that the regression is fitted to, so that
    nothing of a held-out row is in what it is judged by.
    """
    explained = design @ np.linalg.pinv(design[train])
    left = kernel - explained @ kernel[train]
    return left - left[:, train] @ explained.T


def cluster_folds(clusters: np.ndarray, seed: int) -> list[Fold]:
    """(training rows, held-out rows) of each fold; no cluster is in both. clusters: [n] codes."""
    splits = GroupKFold(min(FOLDS, len(np.unique(clusters))), shuffle=True, random_state=seed)
    return list(splits.split(clusters, groups=clusters))


def balanced_accuracy(
    kernel: np.ndarray,
    design: np.ndarray,
    labels: np.ndarray,
    categories: int,
    folds: Sequence[Fold],
) -> np.ndarray:
    """[draws] the balanced accuracy of every labelling; NaN if the kernel says nothing.

    kernel: [n, n]; design: [n, columns] of `nuisances`; labels: [draws, n] codes. One fit serves
    all labellings, since the kernel does not change.
    """
    named = np.zeros(labels.shape, np.int64)
    for train, test in folds:
        guess = _guess(without(kernel, design, train), labels, categories, train, test)
        if guess is None:
            return np.full(len(labels), np.nan)
        named[:, test] = guess
    right, recalls = named == labels, []
    for code in np.unique(labels):
        of = labels == code
        recalls.append((right & of).sum(1) / of.sum(1))
    return np.mean(recalls, axis=0)


def _guess(
    kernel: np.ndarray, labels: np.ndarray, categories: int, train: np.ndarray, test: np.ndarray
) -> np.ndarray | None:
    """[draws, test] the category that each labelling of the training rows gives the others.

    The targets are 1 / share for the category of an instruction and 0 for the others: they have
    one mean, so that a frequent category is not named more often. The penalty is the mean variance
    of an instruction; it is not tuned. None if no two training rows differ.
    """
    centre = KernelCenterer()
    known = centre.fit_transform(kernel[np.ix_(train, train)])
    penalty = float(np.trace(known)) / len(train)
    if not penalty > 1e-9 * max(1.0, float(np.abs(kernel).max())):
        return None
    member = labels[:, train, None] == np.arange(categories)
    count = member.sum(1)
    targets = member * (len(train) / np.maximum(count, 1))[:, None]
    flat = targets.transpose(1, 0, 2).reshape(len(train), -1)
    model = KernelRidge(alpha=penalty, kernel="precomputed").fit(known, flat)
    scores = model.predict(centre.transform(kernel[np.ix_(test, train)]))
    scores = scores.reshape(len(test), len(labels), categories)
    return np.where(count > 0, scores, -np.inf).argmax(2).T


def decoding_table(found: Sequence[Decoding]) -> pa.Table:
    """One row per family and features: the balanced accuracy and its null."""
    return estimate_table(
        {
            "family": pa.array([one.family for one in found], pa.string()),
            "features": pa.array([one.features for one in found], pa.string()),
            "categories": pa.array([one.categories for one in found], pa.int64()),
            "clusters": pa.array([one.clusters for one in found], pa.int64()),
            "instructions": pa.array([one.instructions for one in found], pa.int64()),
        },
        [one.accuracy for one in found],
    )


def decoding_warnings(found: Sequence[Decoding], labels: Labels) -> list[str]:
    """What a reader must know of the decodings: too few clusters, and categories left out."""
    if not found:
        return []
    first, present = found[0], len(np.unique(labels.codes))
    out = []
    if first.categories < min(present, 2):
        out.append("decoding: undetermined: no two categories have two clusters each")
    elif first.accuracy.p is None and present > 1:
        out.append(
            f"decoding: undetermined: {first.clusters} clusters are too few to tell it from chance"
        )
    if 2 <= first.categories < present:
        out.append(
            f"decoding: {present - first.categories} of {present} categories have one cluster "
            "only, which cannot be learned while it is held out; they are left out"
        )
    return out
