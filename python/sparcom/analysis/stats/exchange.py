"""Which labels may be exchanged if category has no effect: the one engine behind every null.

A *node* is what keeps together: the instructions of one cluster, category and source. If category
had no effect, nodes could exchange their labels

- among the clusters of one source and of like length, if a cluster holds one category only
  (nested): whole clusters change category, since a template's instructions are no independent
  evidence;
- within the cluster, if it holds several categories (crossed), such as a passage under every type
  of instruction: what the cluster has in common cancels.

Clusters are of like length if they lie in one class of about `CLASS` clusters of their source, by
their mean log T. Simulations in the tests show that this keeps the level of the tests where length
and category go together, provided that the statistic holds length fixed as well.
"""

import math
from dataclasses import dataclass

import numpy as np

CLASS = 8
"""Clusters in a class of like length."""
ENOUGH = 20
"""Relabellings that are needed to reach p = 0.05."""


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """Nodes of n instructions.

    node: [n] the node of each instruction. The others are [nodes]:
    category, cluster: its codes; two sources of one cluster are two clusters.
    group: nodes of one group exchange labels.
    crossed: True if its cluster holds other categories too.
    """

    node: np.ndarray
    category: np.ndarray
    cluster: np.ndarray
    group: np.ndarray
    crossed: np.ndarray

    @property
    def relabellings(self) -> float:
        """At least so many relabellings tell instructions of one category from those of two.

        The product over groups of their multinomial coefficients, by the number of ways to rename
        the categories, which changes no pair; 1 if nothing can be exchanged.
        """
        logs = 0.0
        for group in np.unique(self.group):
            counts = np.bincount(self.category[self.group == group])
            logs += math.lgamma(counts.sum() + 1) - sum(math.lgamma(c + 1) for c in counts)
        logs -= math.lgamma(len(np.unique(self.category)) + 1)
        return math.exp(min(max(logs, 0.0), 700.0))

    @property
    def enough(self) -> bool:
        """True if relabelling could show p <= 0.05 at all."""
        return self.relabellings >= ENOUGH - 1e-9

    @property
    def drawn_from(self) -> np.ndarray:
        """[clusters] the category that a cluster is drawn from; -1 for crossed ones."""
        first = np.unique(self.cluster, return_index=True)[1]
        return np.where(self.crossed[first], -1, self.category[first])

    def clusters_of(self, categories: int) -> np.ndarray:
        """[C] int64: clusters with instructions of each category."""
        pairs = np.unique(np.stack([self.category, self.cluster]), axis=1)
        return np.bincount(pairs[0], minlength=categories)

    def permuted(self, draws: int, rng: np.random.Generator) -> np.ndarray:
        """[draws, nodes] categories, exchanged within groups."""
        out = np.tile(self.category, (draws, 1))
        for group in np.unique(self.group):
            rows = np.flatnonzero(self.group == group)
            out[:, rows] = rng.permuted(out[:, rows], axis=1)
        return out

    def take(self, rows: np.ndarray) -> tuple["Nodes", np.ndarray]:
        """(the nodes of some instructions, which of these nodes they are)."""
        kept, node = np.unique(self.node[rows], return_inverse=True)
        cluster = np.unique(self.cluster[kept], return_inverse=True)[1]
        taken = Nodes(
            node=node.reshape(-1), category=self.category[kept], cluster=cluster,
            group=self.group[kept], crossed=self.crossed[kept],
        )  # fmt: skip
        return taken, kept

    def one_hot(self) -> np.ndarray:
        """[n, nodes] float32, 1 where an instruction is of a node."""
        return (self.node[:, None] == np.arange(len(self.category))).astype(np.float32)


def make_nodes(
    codes: np.ndarray, clusters: np.ndarray, sources: np.ndarray, tokens: np.ndarray
) -> Nodes:
    """The nodes of instructions.

    codes, clusters, sources: [n] int64; tokens: [n] T.
    """
    of = np.unique(np.stack([clusters, sources]), axis=1, return_inverse=True)[1].reshape(-1)
    joint, node = np.unique(np.stack([of, codes]), axis=1, return_inverse=True)
    cluster, category = joint
    node = node.reshape(-1)
    crossed = np.bincount(cluster, minlength=len(of))[cluster] > 1
    first = np.unique(node, return_index=True)[1]
    length = np.bincount(node, np.log(np.maximum(tokens, 1))) / np.bincount(node)
    group = np.where(crossed, cluster, 0)
    offset = int(cluster.max(initial=0)) + 1
    for source in np.unique(sources[first]):
        rows = np.flatnonzero(~crossed & (sources[first] == source))
        classes = max(1, len(rows) // CLASS)
        rank = np.argsort(np.argsort(length[rows], kind="stable"), kind="stable")
        group[rows] = offset + rank * classes // max(len(rows), 1)
        offset += classes
    return Nodes(node=node, category=category, cluster=cluster, group=group, crossed=crossed)
