"""The regression behind every effect of category on the overlap of two instructions.

Over the pairs I, K of two clusters, the overlap is regressed on "same type", with one constant for
every two strata and further covariates of pairs, such as the share of tokens that the two texts
have in common:

    J_IK = effect * same_IK + constant(stratum I, stratum K) + covariates_IK + error

Pairs within a cluster are left out: templates, not types, make them alike. The overlaps are
summed over nodes (`stats.exchange`) first, so that a relabelling costs nodes^2, not n^2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from sparcom.analysis.stats.exchange import Nodes


@dataclass(frozen=True)
class Effects:
    """An effect with its null and its interval.

    value: NaN if no two strata have both sorts of pair. null: [draws] under relabelled nodes;
    studentised: [1 + draws], the value's and then the null's, by their standard errors.
    error, freedom: standard error and its degrees of freedom, as in `dyadic_error`.
    pairs: [clusters, clusters] what each two add to the error, twice.
    """

    value: float
    null: np.ndarray
    studentised: np.ndarray
    error: float
    freedom: float
    pairs: np.ndarray


class PairDesign:
    """A design for given instructions, strata and covariates; it takes any measure of pairs.

    nodes: of n instructions; strata: [n] codes from 0.
    allowed: [strata, strata] symmetric bool, which pairs of strata take part (default: all).
    covariates: symmetric [n, n] each; one that says nothing beyond the strata is dropped.
    permuted: [draws, nodes] relabellings.
    """

    def __init__(
        self,
        nodes: Nodes,
        strata: np.ndarray,
        permuted: np.ndarray,
        covariates: Sequence[np.ndarray] = (),
        allowed: np.ndarray | None = None,
    ) -> None:
        self.nodes, self.strata = nodes, strata
        self.categories = int(max(nodes.category.max(), permuted.max(initial=0))) + 1
        count = int(strata.max()) + 1
        self._allowed = np.ones((count, count), bool) if allowed is None else allowed
        self._of_node = nodes.one_hot()
        self._of_stratum = (strata[:, None] == np.arange(count)).astype(np.float32)
        self._size = (self._of_node.T @ self._of_stratum).astype(np.float64)  # [nodes, strata]
        self._of_cluster = (nodes.cluster[:, None] == np.arange(nodes.cluster.max() + 1)) * 1.0
        self._total = self._pairs(self._size)
        self._unit: list[np.ndarray] = []
        for matrix in covariates:
            self._add_covariate(matrix)
        self._unit_sums = [self._node_sums(unit) for unit in self._unit]
        labels = np.concatenate([nodes.category[None], permuted])
        self._labels = (labels[:, :, None] == np.arange(self.categories)).astype(np.float64)
        self._weight = np.array([self._weight_of(h) for h in self._labels])

    def effects(self, values: np.ndarray) -> Effects:
        """The effect on a measure. values: [n, n] symmetric; its diagonal is not used."""
        residual = self.residual(values)
        sums = self._node_sums(residual)
        with np.errstate(invalid="ignore", divide="ignore"):
            same = ((sums @ self._labels) * self._labels).sum((1, 2))
            known = self._weight > 1e-9
            all_ = np.where(known, same / self._weight, np.nan)
            studentised = np.where(known, same / np.sqrt(self._weight), np.nan)
        pairs = self._error_of_pairs(residual, float(all_[0]))
        error, freedom = dyadic_error(pairs, self.nodes.drawn_from)
        return Effects(float(all_[0]), all_[1:], studentised, error, freedom, pairs)

    def residual(self, values: np.ndarray) -> np.ndarray:
        """[n, n] float32: values less what strata and covariates explain; 0 within clusters."""
        out = self._centred(values)
        for unit in self._unit:
            out -= np.float32(np.vdot(out, unit)) * unit
        return out

    def cell_means(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """([C, C], [draws, C, C]) mean of each cell of the category matrix; NaN without a pair."""
        sums = self._node_sums(np.where(self._kept(), values, 0).astype(np.float32))
        pairs = self._node_sums(self._kept().astype(np.float32))
        flat = self._labels.transpose(0, 2, 1)
        total, count = flat @ (sums @ self._labels), flat @ (pairs @ self._labels)
        mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0.5)
        return mean[0], mean[1:]

    def mean(self, values: np.ndarray) -> float:
        """The mean over all pairs that take part; NaN without one."""
        kept = self._kept()
        return float(values[kept].mean()) if kept.any() else float("nan")

    @property
    def informative(self) -> float:
        """Share of the same-type pairs whose two strata have different-type pairs too."""
        same = self._same(self._labels[0])
        both = (same > 0.5) & (self._total - same > 0.5)
        return float(same[both].sum() / max(same.sum(), 1.0))

    def _kept(self) -> np.ndarray:
        cluster = self.nodes.cluster[self.nodes.node]
        return (cluster[:, None] != cluster) & self._allowed[self.strata][:, self.strata]

    def _centred(self, values: np.ndarray) -> np.ndarray:
        """values less the mean over the pairs of the same two strata; 0 where left out."""
        kept = self._kept()
        values = np.where(kept, values, 0).astype(np.float32)
        sums = self._of_stratum.T @ values @ self._of_stratum
        mean = np.divide(sums, self._total, out=np.zeros(sums.shape), where=self._total > 0.5)
        values -= mean.astype(np.float32)[self.strata][:, self.strata]
        values *= kept
        return values

    def _add_covariate(self, matrix: np.ndarray) -> None:
        left = self._centred(matrix)
        scale = float(np.sqrt(np.vdot(left, left)))
        for unit in self._unit:
            left -= np.float32(np.vdot(left, unit)) * unit
        rest = float(np.sqrt(np.vdot(left, left)))
        if rest > 1e-3 * scale and rest > 1e-6:
            self._unit.append(left / np.float32(rest))

    def _node_sums(self, matrix: np.ndarray) -> np.ndarray:
        return (self._of_node.T @ matrix @ self._of_node).astype(np.float64)

    def _pairs(self, size: np.ndarray) -> np.ndarray:
        """[strata, strata] ordered pairs of two clusters, of nodes with these sizes."""
        clusters = self._of_cluster.T @ size
        total = size.sum(0)
        return (np.outer(total, total) - clusters.T @ clusters) * self._allowed

    def _same(self, labels: np.ndarray) -> np.ndarray:
        """The ordered pairs of one type, with labels [nodes, C]; a cluster holds a type once."""
        types = labels.T @ self._size
        return (types.T @ types - self._size.T @ self._size) * self._allowed

    def _weight_of(self, labels: np.ndarray) -> float:
        same = self._same(labels)
        weight = (same - _ratio(same**2, self._total)).sum()
        units = (((sums @ labels) * labels).sum() for sums in self._unit_sums)
        return float(weight - sum(unit**2 for unit in units))

    def _error_of_pairs(self, residual: np.ndarray, value: float) -> np.ndarray:
        """[clusters, clusters] what each two clusters add to the effect's error, twice.

        Strata are fitted to the same instructions, which takes up their share of the errors:
        sqrt(n / (n - strata)) gives it back.
        """
        clusters = self._of_cluster.shape[1]
        if not np.isfinite(value):
            return np.full((clusters, clusters), np.nan)
        product = self._same_residual * (residual - np.float32(value) * self._same_residual)
        of = self._of_node @ self._of_cluster.astype(np.float32)
        n, fitted = self._of_stratum.shape
        scale = np.sqrt(n / (n - fitted)) if n > fitted else np.nan
        return 2 * scale * (of.T @ product @ of).astype(np.float64) / self._weight[0]

    @cached_property
    def _same_residual(self) -> np.ndarray:
        """[n, n] float32: "same type", less what strata and covariates explain of it."""
        codes = self.nodes.category[self.nodes.node]
        return self.residual((codes[:, None] == codes).astype(np.float32))


def dyadic_error(pairs: np.ndarray, strata: np.ndarray) -> tuple[float, float]:
    """(standard error, degrees of freedom) of a sum over pairs of clusters.

    pairs: [clusters, clusters] symmetric, what each two clusters add to the figure's error, twice;
    strata: [clusters] clusters are drawn within theirs, and errors are about its mean.
    Two pairs are related if they share a cluster: the sum of u_k^2, u_k the row sums, counts what
    is of a pair alone twice, so that its squares are taken off once (Fafchamps and Gubert 2007);
    (m / (m - 1))^2 for the means of m clusters, as if each were left out in turn.
    NaN if a stratum has one cluster only.
    """
    if not np.isfinite(pairs).all():
        return float("nan"), float("nan")
    of = np.unique(strata, return_inverse=True)[1]
    size = np.bincount(of)
    if not len(size) or size.min() < 2:
        return float("nan"), float("nan")
    scale = size / (size - 1)
    sums = pairs.sum(1)
    sums -= (np.bincount(of, sums) / size)[of]
    each = scale**2 * np.bincount(of, np.square(sums))
    own = float(np.square(_degenerate(pairs, of, size)).sum()) / 2
    variance = max(each.sum() - own, each.sum() / 2)
    if variance <= 0:
        return float("nan"), float("nan")
    return float(np.sqrt(variance)), float(each.sum() ** 2 / (each**2 / (size - 1)).sum())


def _degenerate(pairs: np.ndarray, of: np.ndarray, size: np.ndarray) -> np.ndarray:
    """[clusters, clusters] what is of a pair alone: less the means of both clusters in their cell.

    A cell is two strata. 0 in cells of strata with three clusters or fewer, too few to tell.
    """
    member = (of[:, None] == np.arange(len(size))) * 1.0
    alike = of[:, None] == of
    partners = size[None, :] - np.eye(len(size))[of]  # [clusters, strata]
    rows = (pairs @ member / np.maximum(partners, 1))[:, of]
    couples = np.outer(size, size) - np.diag(size)
    mean = (member.T @ pairs @ member / np.maximum(couples, 1))[of][:, of]
    m = size[of][:, None]
    scale = np.where(alike, (m - 1) / np.maximum(m - 2, 1), 1.0)
    out = pairs - mean - scale * (rows - mean) - scale.T * (rows.T - mean)
    np.fill_diagonal(out, 0.0)
    few = size[of] <= 3
    out[few[:, None] | few] = 0.0
    return out


def t_bounds(value: float, error: float, freedom: float) -> tuple[float | None, float | None]:
    """The 95 % interval; (None, None) if the error is not known."""
    if not np.isfinite(error) or not np.isfinite(value):
        return None, None
    half = error * stats.t.ppf(0.975, freedom)
    return float(value - half), float(value + half)


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.zeros(top.shape), where=bottom > 0.5)
