"""Frequencies c / T of instructions, from stored counts: what the component tests act on.

Counts are held as they are stored, in 16 bits where T allows; frequencies are made of a few
components at a time. Beyond `LIMIT_BYTES`, a sample of the instructions is taken, evenly over
categories: the tests rest on clusters, of which a sample holds nearly all.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sparcom.analysis.data.labels import Labels
from sparcom.store import Run

LIMIT_BYTES = 1_500_000_000
CHUNK = 8192


@dataclass(frozen=True, kw_only=True)
class Frequencies:
    """Counts of some instructions.

    rows: [k] of the labels; counts: [k, components]; tokens: [k] T.
    """

    rows: np.ndarray
    counts: np.ndarray
    tokens: np.ndarray

    def chunks(self, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """[k, some components] float32 of c / T, all components in their order.

        rows: some of the k instructions (default: all).
        """
        counts = self.counts if rows is None else self.counts[rows]
        tokens = self.tokens if rows is None else self.tokens[rows]
        share = (1 / np.maximum(tokens, 1)).astype(np.float32)[:, None]
        for start in range(0, counts.shape[1], CHUNK):
            yield counts[:, start : start + CHUNK] * share


def read_frequencies(run: Run, labels: Labels, seed: int) -> dict[str, Frequencies]:
    """ "neurons" and "experts" -> their frequencies; empty if the run retains no counts."""
    if not run.store.results.parts("counts"):
        return {}
    widths = {"neurons": run.space.neurons, "experts": run.space.experts}
    size = 2 if labels.tokens.max(initial=0) < 1 << 16 else 4
    kept = _sample(labels, max(2, LIMIT_BYTES // (size * sum(widths.values()))), seed)
    place = np.full(len(labels.ids), -1, np.int64)
    place[kept] = np.arange(len(kept))
    row_of = {name: int(place[row]) for row, name in enumerate(labels.ids)}
    kind = np.uint16 if size == 2 else np.uint32
    counts = {name: np.zeros((len(kept), n), kind) for name, n in widths.items() if n}
    for _, counted in run.store.results.counts():
        at = np.array([row_of.get(name, -1) for name in counted.ids], np.int64)
        for name, matrix in counts.items():
            matrix[at[at >= 0]] = getattr(counted, name)[at >= 0]
    tokens = labels.tokens[kept]
    return {n: Frequencies(rows=kept, counts=c, tokens=tokens) for n, c in counts.items()}


def _sample(labels: Labels, most: int, seed: int) -> np.ndarray:
    """Sorted rows: all, or `most` of them, evenly over categories."""
    if len(labels.ids) <= most:
        return np.arange(len(labels.ids))
    rng, names = np.random.default_rng(seed), np.unique(labels.codes)
    share = max(1, most // len(names))
    parts = [rng.permutation(np.flatnonzero(labels.codes == name))[:share] for name in names]
    return np.sort(np.concatenate(parts))
