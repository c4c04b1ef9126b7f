"""Does the category effect hold within each source, and across sources?"""

from dataclasses import dataclass

import numpy as np

from sparcom.analysis.data.labels import Labels
from sparcom.analysis.data.strata import Strata
from sparcom.analysis.overlap.category_effect import effect_estimate
from sparcom.analysis.overlap.category_matrix import CategoryMatrix, matrix_of_sums
from sparcom.analysis.overlap.matrix_cells import MatrixEstimates, cell_estimates
from sparcom.analysis.overlap.pair_design import PairDesign
from sparcom.analysis.overlap.pair_draws import PairDraws
from sparcom.analysis.stats.estimate import Estimate
from sparcom.analysis.stats.jackknife import jackknife
from sparcom.analysis.stats.pair_sums import group_sums, one_hot, weighted_sums


@dataclass(frozen=True, kw_only=True)
class SourceOverlap:
    """Category matrix of the pairs between two sources (or within one), and its category effect.

    first, second: names of the sources; the same name twice: pairs within it.
    matrix: M[a, b] over I in (first, a), K in (second, b); across sources it need not be symmetric.
    estimates: [C][C] an Estimate of each, intervals over clusters.
    effect: Estimate, adjusted as the primary effect is; the null relabels nodes.
    """

    first: str
    second: str
    matrix: CategoryMatrix
    estimates: MatrixEstimates
    effect: Estimate


def source_overlaps(
    values: np.ndarray,
    labels: Labels,
    strata: Strata,
    lexical: np.ndarray,
    draws: PairDraws,
    rng: np.random.Generator,
) -> list[SourceOverlap]:
    """Every source within itself, and every two across; none of a single source.

    Across sources, pairs of one type share no author and no cluster: a category effect there is
    the strongest evidence. values, lexical: [n, n].
    """
    names, types, source = strata.sources, len(labels.categories), strata.sources_of
    if len(names) < 2:
        return []
    joint = source * types + labels.codes
    groups = len(names) * types
    sums, pairs = group_sums(values, one_hot(joint, groups))
    cluster = draws.nodes.cluster[draws.nodes.node]
    drawn_from = draws.nodes.drawn_from[cluster] + 1  # 0: of clusters that hold several categories
    left_out = jackknife(source * (types + 1) + drawn_from, cluster, rng)
    again = weighted_sums(values, joint, left_out.weights, groups).means()
    out = []
    present = np.unique(source).tolist()  # a source may have no set of this family
    for i in present:
        for j in (j for j in present if j >= i):
            block = np.s_[..., i * types : (i + 1) * types, j * types : (j + 1) * types]
            matrix = matrix_of_sums(sums[block], pairs[block], labels.categories, twice=i == j)
            out.append(
                SourceOverlap(
                    first=names[i],
                    second=names[j],
                    matrix=matrix,
                    estimates=cell_estimates(matrix.mean, again[block], left_out),
                    effect=_effect(values, strata, lexical, draws, {i, j}),
                )
            )
    return out


def _effect(
    values: np.ndarray, strata: Strata, lexical: np.ndarray, draws: PairDraws, pair: set[int]
) -> Estimate:
    """The adjusted effect among the pairs of two sources, or within the one."""
    rows = np.flatnonzero(np.isin(strata.sources_of, list(pair)))
    nodes, kept = draws.nodes.take(rows)
    used, codes = np.unique(strata.codes[rows], return_inverse=True)
    of = strata.source[used]
    allowed = (of[:, None] == min(pair)) & (of == max(pair))
    block = np.ix_(rows, rows)
    design = PairDesign(
        nodes, codes, draws.few_relabelled[:, kept], [lexical[block]], allowed | allowed.T
    )
    return effect_estimate(design.effects(values[block]), design)
