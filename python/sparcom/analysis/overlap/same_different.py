"""Pairs of one type against pairs of two: how the overlap is distributed, and ranks of pairs."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Summary of a sample of pair values.

    count, mean, sd: of the sample; quantiles: its `QUANTILES`.
    density: [bins] share of the sample in each bin of `SameDifferent.edges`.
    """

    count: int
    mean: float
    sd: float
    quantiles: tuple[float, ...]
    density: np.ndarray


@dataclass(frozen=True, kw_only=True)
class SameDifferent:
    """Pairs of one category against pairs of two. edges: [bins + 1] of both densities."""

    same: Distribution
    different: Distribution
    edges: np.ndarray


def same_different(values: np.ndarray, codes: np.ndarray, bins: int = 60) -> SameDifferent | None:
    """Distributions of a symmetric measure over same-type and different-type pairs I < K.

    values: [n, n]; codes: [n] the category of each instruction. None without a pair of each sort:
    with one category, or with one instruction in each.
    """
    rows, columns = np.triu_indices(len(codes), 1)
    alike = codes[rows] == codes[columns]
    sample = values[rows, columns]
    same, different = sample[alike], sample[~alike]
    if not len(same) or not len(different):
        return None
    low, high = float(sample.min()), float(sample.max())
    edges = np.linspace(low, high if high > low else low + 1.0, bins + 1)
    return SameDifferent(
        same=_summary(same, edges), different=_summary(different, edges), edges=edges
    )


def _summary(sample: np.ndarray, edges: np.ndarray) -> Distribution:
    return Distribution(
        count=len(sample),
        mean=float(sample.mean()),
        sd=float(sample.std(ddof=1)) if len(sample) > 1 else 0.0,
        quantiles=tuple(np.quantile(sample, QUANTILES).tolist()),
        density=np.histogram(sample, edges)[0] / len(sample),
    )


def ridits(values: np.ndarray) -> np.ndarray:
    """[n, n]: each pair's mid-rank among all pairs I < K, as a share; diagonal 0.

    >>> ridits(np.array([[0, 0.1, 0.3], [0.1, 0, 0.1], [0.3, 0.1, 0]]))[0]
    array([0.        , 0.33333333, 0.83333333])
    """
    rows, columns = np.triu_indices(len(values), 1)
    out = np.zeros(values.shape)
    out[rows, columns] = (rankdata(values[rows, columns]) - 0.5) / max(len(rows), 1)
    return out + out.T
