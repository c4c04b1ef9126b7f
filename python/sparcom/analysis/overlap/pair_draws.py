"""The draws behind every null and interval of a family's pairs."""

from dataclasses import dataclass

import numpy as np

from sparcom.analysis.data.labels import Labels
from sparcom.analysis.data.strata import Strata
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.stats.exchange import Nodes, make_nodes
from sparcom.analysis.stats.jackknife import Jackknife, jackknife
from sparcom.analysis.stats.resample import bootstrap_weights


@dataclass(frozen=True, kw_only=True)
class PairDraws:
    """Relabellings and resamples of n instructions.

    nodes: what keeps together. relabelled: [permutations, nodes] categories.
    weights: [bootstraps, n] with clusters drawn as wholes.
    few_relabelled: the first `small_draws` of them. left_out: clusters, one at a time.
    """

    nodes: Nodes
    relabelled: np.ndarray
    weights: np.ndarray
    few_relabelled: np.ndarray
    left_out: Jackknife

    @property
    def permuted(self) -> np.ndarray:
        """[permutations, n] the relabelled categories of the instructions."""
        return self.relabelled[:, self.nodes.node]


def make_draws(
    labels: Labels, strata: Strata, options: AnalysisOptions, rng: np.random.Generator
) -> PairDraws:
    """All draws for some instructions; the order in which they are drawn is fixed."""
    nodes = make_nodes(labels.codes, labels.clusters, strata.sources_of, labels.tokens)
    relabelled = nodes.permuted(options.permutations, rng)
    drawn_from, cluster = nodes.drawn_from, nodes.cluster[nodes.node]
    weights = bootstrap_weights(drawn_from[cluster], cluster, options.bootstraps, rng)
    few = options.small_draws
    return PairDraws(
        nodes=nodes,
        relabelled=relabelled,
        weights=weights,
        few_relabelled=relabelled[:few],
        left_out=jackknife(drawn_from[cluster], cluster, rng),
    )
