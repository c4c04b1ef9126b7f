"""One contrast: some instructions against others, within strata, with clusters as the unit.

The difference is the stratified (Mantel-Haenszel) one, the regression of x on "inside" with one
constant for each stratum:

    difference = sum_i z_i x_i / sum_i z_i^2,   z_i = inside_i - share of insiders in i's stratum

Its standard error is cluster-robust with the bias correction CR2 and Satterthwaite's degrees of
freedom of Bell and McCaffrey (2002), which stay right for few and unequal clusters. It costs a few
sparse products, so that every neuron of a model can be tested.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import sparse, special

LEAST_FREEDOM = 4.0
"""Degrees of freedom below which two categories are not compared one with the other."""
SMALLEST_ERROR = 1e-4
"""Standard errors below are taken for this: x is read in single precision."""


@dataclass(frozen=True)
class Difference:
    """Differences of F components. value, error: [F] float64."""

    value: np.ndarray
    error: np.ndarray


class Contrast:
    """Instructions of one category against others.

    codes: [n] categories; category: the code of those inside; used: [n] bool, inside or in what
    they are compared with. clusters, strata: [n] codes.

    effective: sum_i z_i^2, the n_1 n_0 / (n_1 + n_0) of all strata: how many instructions, compared
        with very many others of like length and source, would tell as much.
    inside_clusters, outside_clusters: clusters that take part on either side.
    freedom: degrees of freedom of the error.
    smallest_p: no p is below it: two-sided, by the number of ways to deal the clusters out.
    """

    def __init__(
        self,
        codes: np.ndarray,
        category: int,
        used: np.ndarray,
        clusters: np.ndarray,
        strata: np.ndarray,
    ) -> None:
        rows = np.flatnonzero(used)
        side = (codes[rows] == category).astype(np.float64)
        stratum = np.unique(strata[rows], return_inverse=True)[1]
        cluster = np.unique(clusters[rows], return_inverse=True)[1]
        size = np.bincount(stratum)
        z = side - (np.bincount(stratum, side) / size)[stratum]
        self.effective = float(z @ z)
        counted = np.abs(z) > 1e-9
        self.inside_clusters = len(np.unique(cluster[counted & (side > 0)]))
        self.outside_clusters = len(np.unique(cluster[counted & (side == 0)]))
        self.smallest_p, self.freedom = 1.0, float("nan")
        if self.effective < 1e-9:
            return
        self.smallest_p = _smallest_p(codes[rows][counted], category, cluster[counted])
        weight = _corrected_weights(z, size, stratum, cluster)
        n, count = len(rows), int(cluster.max()) + 1
        at = np.arange(n)
        full = (count, len(codes)), (len(size), len(codes))
        self._z = np.zeros(len(codes), np.float32)
        self._z[rows] = z / self.effective
        self._scores = sparse.csr_matrix((weight.astype(np.float32), (cluster, rows)), full[0])
        mean = (1 / size[stratum]).astype(np.float32)
        self._means = sparse.csr_matrix((mean, (stratum, rows)), full[1])
        of_stratum = sparse.csr_matrix((weight, (cluster, stratum)), (count, len(size)))
        self._of_stratum = of_stratum.astype(np.float32)
        self._of_value = np.bincount(cluster, weight * z, count).astype(np.float32)
        to_cluster = sparse.csr_matrix((weight, (cluster, at)), (count, n)).toarray()
        to_cluster -= (of_stratum.toarray() / size)[:, stratum]
        to_cluster -= np.outer(np.bincount(cluster, weight * z, count), z) / self.effective
        self.freedom = _freedom(to_cluster, cluster)

    @property
    def determined(self) -> bool:
        """True if there are clusters enough to reach p = 0.05 at all."""
        return self.smallest_p <= 0.05

    @property
    def comparable(self) -> bool:
        """True if the sides can be told apart well enough to be asked whether one is above."""
        return self.determined and self.freedom >= LEAST_FREEDOM

    def differences(self, x: np.ndarray) -> Difference:
        """The difference of each component. x: [n, F] float32 of all instructions.

        NaN if no stratum holds both sides.
        """
        if self.effective < 1e-9:
            missing = np.full(x.shape[1], np.nan)
            return Difference(missing, missing)
        value = self._z @ x
        scores = self._scores @ x - self._of_stratum @ (self._means @ x)
        scores -= self._of_value[:, None] * value
        error = np.sqrt(np.einsum("kf,kf->f", scores, scores, dtype=np.float64)) / self.effective
        return Difference(value.astype(np.float64), np.maximum(error, SMALLEST_ERROR))

    def p_values(self, found: Difference, least: float | None = None) -> np.ndarray:
        """[F] p of a difference, two-sided; with `least`, one-sided of one that exceeds it.

        1 if the difference is not known, or does not reach `least`.
        """
        out = np.ones(len(found.value))
        if least is None:
            at = np.flatnonzero(np.isfinite(found.value))
            score, sides = np.abs(found.value[at]) / found.error[at], 2
        else:
            at = np.flatnonzero(found.value > least)
            score, sides = (found.value[at] - least) / found.error[at], 1
        if len(at):
            tail = sides * special.stdtr(self.freedom, -score)
            out[at] = np.clip(tail, self.smallest_p * sides / 2, 1.0)
        return out


def _smallest_p(codes: np.ndarray, category: int, cluster: np.ndarray) -> float:
    """2 / the number of ways to deal "inside" out: among clusters, or within crossed ones."""
    of, code = np.unique(np.stack([cluster, codes]), axis=1)
    held = np.bincount(of)  # categories of each cluster
    crossed = held[of] > 1
    inside = code == category
    ways = float(np.log(held[of[crossed & inside]]).sum())
    ways += math.log(math.comb(int((~crossed).sum()), int((inside & ~crossed).sum())))
    return min(1.0, 2 * math.exp(-min(ways, 700.0)))


def _corrected_weights(
    z: np.ndarray, size: np.ndarray, stratum: np.ndarray, cluster: np.ndarray
) -> np.ndarray:
    """[n] CR2: (I - H_kk)^(-1/2) z_k, cluster by cluster, H the hat matrix of the regression.

    Directions in which a cluster determines its own fit carry no evidence and get no weight.
    """
    out, total = np.zeros(len(z)), z @ z
    order = np.argsort(cluster, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(cluster))[:-1]):
        alike = stratum[rows][:, None] == stratum[rows]
        hat = alike / size[stratum[rows]] + np.outer(z[rows], z[rows]) / total
        values, vectors = np.linalg.eigh(np.eye(len(rows)) - hat)
        root = np.where(values > 1e-6, 1 / np.sqrt(np.maximum(values, 1e-6)), 0.0)
        out[rows] = (vectors * root) @ (vectors.T @ z[rows])
    return out


def _freedom(to_cluster: np.ndarray, cluster: np.ndarray) -> float:
    """Bell and McCaffrey's degrees of freedom; the smaller one of two models of the errors.

    to_cluster: [clusters, n] what takes errors to the clusters' scores. Errors are independent, or
    the same within a cluster.
    """
    count = len(to_cluster)
    summed = to_cluster @ (cluster[:, None] == np.arange(count))
    found = []
    for each in (to_cluster, summed):
        products = each @ each.T
        found.append(np.trace(products) ** 2 / max(np.square(products).sum(), 1e-300))
    return float(max(min(found), 1.0))
