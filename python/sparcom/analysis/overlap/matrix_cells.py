"""The cells of the category matrix, each with its interval, and tested together."""

from dataclasses import dataclass

import numpy as np

from sparcom.analysis.data.sites import FamilySite
from sparcom.analysis.overlap.category_matrix import category_matrix
from sparcom.analysis.overlap.pair_design import PairDesign
from sparcom.analysis.stats.estimate import Estimate, known
from sparcom.analysis.stats.jackknife import Jackknife
from sparcom.analysis.stats.multiple import max_statistic
from sparcom.analysis.stats.pair_sums import weighted_sums

MatrixEstimates = tuple[tuple[Estimate, ...], ...]


@dataclass(frozen=True, kw_only=True)
class LayerMatrix:
    """The category matrix of one site. estimates: [C][C]."""

    layer: int
    kind: str
    estimates: MatrixEstimates


def raw_cells(
    values: np.ndarray, codes: np.ndarray, categories: tuple[str, ...], left_out: Jackknife
) -> MatrixEstimates:
    """M of all pairs with intervals over clusters; none where a category has few of them.

    values: [n, n]. Clusters are left out, not drawn again: one drawn twice would meet itself, and
    its instructions are alike.
    """
    mean = category_matrix(values, codes, categories).mean
    return cell_estimates(
        mean, weighted_sums(values, codes, left_out.weights, len(categories)).means(), left_out
    )


def cell_estimates(mean: np.ndarray, again: np.ndarray, left_out: Jackknife) -> MatrixEstimates:
    """[C][C] means with intervals. mean: [C, C]; again: [parts, C, C]."""
    cells = np.stack([mean, *left_out.bounds(mean, again)], -1)
    return tuple(tuple(Estimate(*map(known, cell)) for cell in row) for row in cells)


def adjusted_cells(values: np.ndarray, design: PairDesign, categories: int) -> MatrixEstimates:
    """M among pairs of two clusters, less what strata and covariates explain, plus their mean.

    The null relabels nodes; p is two-sided and corrected over the cells a <= b.
    """
    residual = design.residual(values)
    mean, null = design.cell_means(residual)
    level = design.mean(values)
    mean, null = (_square(x + level, categories) for x in (mean, null))
    rows, columns = np.triu_indices(categories)
    p = np.full(mean.shape, np.nan)
    if design.nodes.enough:
        p[rows, columns] = max_statistic(mean[rows, columns], null[:, rows, columns],
                                         two_sided=True)  # fmt: skip
        p[columns, rows] = p[rows, columns]
    return tuple(
        tuple(_cell(mean[a, b], null[:, a, b], p[a, b]) for b in range(categories))
        for a in range(categories)
    )


def layer_matrix(
    site: FamilySite,
    values: np.ndarray,
    codes: np.ndarray,
    categories: tuple[str, ...],
    left_out: Jackknife,
) -> LayerMatrix:
    """M within a site; arguments as in `raw_cells`."""
    cells = raw_cells(values.astype(np.float32), codes, categories, left_out)
    return LayerMatrix(layer=site.layer, kind=site.kind, estimates=cells)


def _square(cells: np.ndarray, categories: int) -> np.ndarray:
    """Cells [..., C', C'] with NaN for the categories that the design has not."""
    out = np.full((*cells.shape[:-2], categories, categories), np.nan)
    out[..., : cells.shape[-2], : cells.shape[-1]] = cells
    return out


def _cell(value: float, null: np.ndarray, p: float) -> Estimate:
    if not np.isfinite(value) or not np.isfinite(p):
        return Estimate(float(value) if np.isfinite(value) else None)
    null = null[np.isfinite(null)]
    low, high = np.quantile(null, [0.025, 0.975])
    return Estimate(float(value), None, None, float(null.mean()), float(low), float(high),
                    float(p))  # fmt: skip
