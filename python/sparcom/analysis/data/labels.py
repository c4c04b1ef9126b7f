"""What is known of each instruction: its category, tokens and cluster."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sparcom.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Labels:
    """One entry for each instruction.

    categories: names; codes: [n] int64, index into them. tokens: [n] int64, T.
    clusters: [n] int64, index into cluster_names (`sparcom.clusters`).
    """

    ids: tuple[str, ...]
    categories: tuple[str, ...]
    codes: np.ndarray
    tokens: np.ndarray
    clusters: np.ndarray
    cluster_names: tuple[str, ...]

    def take(self, rows: np.ndarray) -> "Labels":
        """The labels of some instructions; categories and clusters keep their codes."""
        return Labels(
            ids=tuple(self.ids[row] for row in rows),
            categories=self.categories,
            codes=self.codes[rows],
            tokens=self.tokens[rows],
            clusters=self.clusters[rows],
            cluster_names=self.cluster_names,
        )


def make_labels(table: pa.Table, categories: Sequence[str]) -> Labels:
    """Labels from the columns id, category, cluster (resolved) and n_counted.

    categories: their order; those that do not occur are left out.
    """
    words = table["category"].to_pylist()
    present = set(words)
    names = tuple(name for name in categories if name in present)
    clusters = table["cluster"].to_pylist()
    cluster_names = tuple(sorted(set(clusters)))
    return Labels(
        ids=tuple(table["id"].to_pylist()),
        categories=names,
        codes=encode(words, names),
        tokens=table["n_counted"].to_numpy().astype(np.int64),
        clusters=encode(clusters, cluster_names),
        cluster_names=cluster_names,
    )


def encode(words: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """[n] int64: the index of each word in `names`; raises InputError for a word not in it."""
    index = {name: at for at, name in enumerate(names)}
    unknown = sorted(set(words) - set(index))
    if unknown:
        raise InputError(f"labels: {unknown[0]!r} is none of the categories {', '.join(names)}")
    return np.array([index[word] for word in words], dtype=np.int64)
