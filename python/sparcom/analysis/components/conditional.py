"""Conditional frequency of routed neurons: how often one fires once its expert is chosen.

A routed neuron's frequency p = c / T cannot exceed its expert's f = r / T, so a neuron that always
fires in an expert that is seldom chosen looks rare. Its conditional frequency c / r takes the
routing out. Over a category both are ratios of sums, c and r added over its instructions; the
stored profile holds these whatever a run retains. Intervals are a jackknife over the profile's
folds, about a tenth of the clusters each, since instructions of a cluster are not independent.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from sparcom.analysis.data.labels import encode
from sparcom.analysis.stats.cluster_mean import LEAST_CLUSTERS
from sparcom.analysis.stats.estimate import Estimate, known
from sparcom.analysis.stats.jackknife import jackknife_bounds
from sparcom.component_list import component_table
from sparcom.components import ComponentSpace
from sparcom.store import CellRule, Run


@dataclass(frozen=True, kw_only=True)
class ConditionalFrequency:
    """Frequencies of the routed neurons of each category.

    categories: [C]; neurons: [F] int64, flat indices of all routed neurons.
    frequency: [C, F] p, summed c / summed T; NaN if a category has no counted tokens.
    value, low, high: [C, F] c / r with its interval; NaN if the expert was never chosen, and in the
        bounds if fewer than `LEAST_CLUSTERS` folds chose it, or if an older version made the folds.
    overall: [F] c / r over all categories: the chance level, if the category had no effect.
    in_sets: [C] Estimate, mean c / r of a category's ISNs (each neuron weighed by its prevalence).
        It has no chance level: neurons that fire often are the ones that sets hold.
    """

    categories: tuple[str, ...]
    neurons: np.ndarray
    frequency: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    overall: np.ndarray
    in_sets: tuple[Estimate, ...]

    def table(self, space: ComponentSpace, held: np.ndarray) -> pa.Table:
        """One row per routed neuron that any set holds. held: [neurons of the model] bool."""
        keep = held[self.neurons]
        table = component_table(space, "neurons", self.neurons[keep])
        columns = {"conditional_all": self.overall}
        for at, name in enumerate(self.categories):
            columns[f"frequency_{name}"] = self.frequency[at]
            columns[f"conditional_{name}"] = self.value[at]
            columns[f"conditional_{name}_low"] = self.low[at]
            columns[f"conditional_{name}_high"] = self.high[at]
        for name, values in columns.items():
            column = pa.array(values[keep].astype(np.float32), from_pandas=True)
            table = table.append_column(name, column)
        return table


def conditional_frequency(
    run: Run, categories: tuple[str, ...], prevalence: np.ndarray
) -> ConditionalFrequency:
    """c / r of every routed neuron and category, from the stored profile.

    categories: their order; prevalence: [C, neurons of the model], which must have routed experts.

    >>> found = conditional_frequency(run, run.categories, membership.prevalence())
    >>> found.table(run.space, membership.totals() > 0)
    """
    cells, sums = run.store.profiles.read(("category", "fold"), ("neuron_counts", "expert_counts"))
    by_cluster = CellRule.from_json(run.manifest["cells"]).fold_of == "cluster"
    expert = run.space.neuron_experts
    neurons = np.flatnonzero(expert >= 0)
    owner = expert[neurons]
    code = encode(cells["category"].to_pylist(), categories)
    tokens = cells["tokens"].to_numpy()
    shape = (len(categories), len(neurons))
    frequency, value, low, high = (np.full(shape, np.nan, np.float32) for _ in range(4))
    in_sets = []
    total_c, total_r = np.zeros(len(neurons)), np.zeros(run.space.experts)
    for at in range(len(categories)):
        rows = np.flatnonzero((code == at) & (tokens > 0))
        c = sums["neuron_counts"][np.ix_(rows, neurons)].astype(np.float64)
        r = sums["expert_counts"][rows].astype(np.float64)
        total_c += c.sum(0)
        total_r += r.sum(0)
        if len(rows):
            frequency[at] = c.sum(0) / tokens[rows].sum()
        whole, left_out = _without_each(c, r[:, owner])
        value[at] = whole
        if by_cluster:
            low[at], high[at] = _interval(whole, left_out, (r > 0).sum(0)[owner])
        in_sets.append(_in_sets(whole, left_out, prevalence[at, neurons], by_cluster))
    overall = _ratio(total_c, total_r[owner])
    return ConditionalFrequency(
        categories=categories,
        neurons=neurons,
        frequency=frequency,
        value=value,
        low=low,
        high=high,
        overall=overall,
        in_sets=tuple(in_sets),
    )


def _ratio(c: np.ndarray, r: np.ndarray) -> np.ndarray:
    return np.divide(c, r, out=np.full(np.shape(c), np.nan), where=np.asarray(r) > 0)


def _without_each(c: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(summed c / summed r [F], the same without each fold [folds, F]) of c, r [folds, F]."""
    total_c, total_r = c.sum(0), r.sum(0)
    return _ratio(total_c, total_r), _ratio(total_c - c, total_r - r)


def _interval(
    value: np.ndarray, left_out: np.ndarray, folds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Jackknife t intervals within [0, 1]; folds: [F] how many chose the expert."""
    one = np.zeros(len(left_out), np.int64)
    bounds = np.clip(jackknife_bounds(value, left_out, one), 0, 1)
    low, high = np.where(folds >= LEAST_CLUSTERS, bounds, np.nan)
    return low, high


def _in_sets(
    value: np.ndarray, left_out: np.ndarray, prevalence: np.ndarray, by_cluster: bool
) -> Estimate:
    """Mean c / r weighed by prevalence, and its jackknife interval."""
    weight = np.where(np.isfinite(value), prevalence, 0.0)
    if weight.sum() <= 0:
        return Estimate(None)

    def mean(values: np.ndarray) -> float:
        there = np.isfinite(values)
        return float((values * weight)[there].sum() / max(weight[there].sum(), 1e-300))

    result = Estimate(mean(value))
    if len(left_out) < LEAST_CLUSTERS or not by_cluster:
        return result
    again = np.array([[mean(row) for row in left_out]]).T
    low, high = _interval(np.array([result.value]), again, np.array([len(again)]))
    return replace(result, low=known(low[0]), high=known(high[0]))
