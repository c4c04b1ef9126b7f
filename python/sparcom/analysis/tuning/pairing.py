"""The instructions of two runs, paired: what keeps together, what is alike."""

from dataclasses import dataclass, replace

import numpy as np

from sparcom.analysis.data.comparable import Common
from sparcom.analysis.data.labels import Labels
from sparcom.analysis.data.strata import make_strata
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.stats.cluster_mean import ClusterMean, cluster_mean
from sparcom.analysis.stats.estimate import Estimate, known
from sparcom.analysis.stats.exchange import make_nodes
from sparcom.store import CellRule, Run


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """n instructions, each with a set in either run.

    categories: [C] names; codes: [n] their indices.
    clusters: [n] int64, from 0; two sources of one cluster are two. drawn_from: [n] the category
        that the instruction's cluster is drawn from; -1 if the cluster holds several.
    strata: [n] length bin x source; log_tokens: [n] log T in the first run.
    signs: [permutations, clusters] of 1 and -1: -1 swaps the two runs of a cluster.
    """

    categories: tuple[str, ...]
    codes: np.ndarray
    clusters: np.ndarray
    drawn_from: np.ndarray
    strata: np.ndarray
    log_tokens: np.ndarray
    signs: np.ndarray

    @property
    def groups(self) -> list[np.ndarray]:
        """[C + 1] of [n] bool: the instructions of each category, and all."""
        everyone = np.ones(len(self.codes), bool)
        return [*(self.codes == c for c in range(len(self.categories))), everyone]

    @property
    def cluster_counts(self) -> np.ndarray:
        """[C + 1] int64: clusters of each category, and of all."""
        return np.array([len(np.unique(self.clusters[group])) for group in self.groups])

    def take(self, rows: np.ndarray) -> "Pairing":
        """The pairing of some instructions."""
        return replace(
            self, codes=self.codes[rows], clusters=self.clusters[rows],
            drawn_from=self.drawn_from[rows], strata=self.strata[rows],
            log_tokens=self.log_tokens[rows],
        )  # fmt: skip

    def means(self, values: np.ndarray) -> list[ClusterMean]:
        """[C + 1] means of values [n, F] over each category and over all."""
        out = []
        for at, group in enumerate(self.groups):
            own = at < len(self.categories)  # within one category, clusters are drawn alike
            drawn_from = 0 * self.codes[group] if own else self.drawn_from[group]
            given = values[group], self.codes[group], self.clusters[group], drawn_from
            out.append(cluster_mean(*given))
        return out

    def estimates(self, values: np.ndarray) -> tuple[Estimate, ...]:
        """[C + 1] means of values [n] with their intervals over clusters."""
        return tuple(mean_estimates(mean)[0] for mean in self.means(values[:, None]))

    def swapped(self, values: np.ndarray) -> np.ndarray:
        """[draws, C + 1, F] means of values [n, F], differences, with runs of clusters swapped."""
        out = []
        for group in self.groups:
            sums = np.zeros((self.signs.shape[1], values.shape[1]))
            np.add.at(sums, self.clusters[group], values[group])
            out.append(self.signs @ sums / max(int(group.sum()), 1))
        return np.stack(out, 1)


def make_pairing(first: Run, common: Common, labels: Labels, options: AnalysisOptions) -> Pairing:
    """The pairing of the instructions that two runs share; strata are those of the first run."""
    rng = np.random.default_rng(options.seed)
    rule = CellRule.from_json(first.manifest["cells"])
    strata = make_strata(rule.keys(common.table, labels.tokens))
    nodes = make_nodes(labels.codes, labels.clusters, strata.sources_of, labels.tokens)
    clusters = nodes.cluster[nodes.node]
    drawn_from = nodes.drawn_from[clusters]
    return Pairing(
        categories=labels.categories,
        codes=labels.codes,
        clusters=clusters,
        drawn_from=drawn_from,
        strata=strata.codes,
        log_tokens=np.log(np.maximum(labels.tokens, 1)),
        signs=rng.choice([-1.0, 1.0], (options.permutations, int(clusters.max()) + 1)),
    )


def mean_estimates(mean: ClusterMean, level: float = 0.05) -> list[Estimate]:
    """[F] estimates with 1 - level intervals; what is not known is None."""
    columns = (mean.value, *mean.bounds(level))
    return [Estimate(*map(known, figures)) for figures in zip(*columns, strict=True)]
