"""How firing frequencies changed: delta p of neurons and delta f of experts, paired.

p = c / T and f = r / T, each with its own run's T: written answers differ in length.

With a noise floor, a change counts only if it is larger than the floor's. A floor has no direction,
so both d - f and d + f, the change minus and plus the floor's, must have the direction of d.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy import stats

from sparcom.analysis.components.enrichment import q_values
from sparcom.analysis.data.sites import FamilySite, family_sites
from sparcom.analysis.stats.cluster_mean import ClusterMean
from sparcom.analysis.stats.estimate import Estimate, estimate_table
from sparcom.analysis.tuning.pairing import Pairing, mean_estimates
from sparcom.component_list import component_table
from sparcom.counting.counted import Counted
from sparcom.store import Run

STRONGEST = 200
"""Components of a family whose change is listed with its interval."""


@dataclass(frozen=True, kw_only=True)
class FrequencyChange:
    """layers: one row per category ("all" last) and site: mean change of frequency over the site's
        components and the category's instructions, with its interval over clusters.
    components: the `STRONGEST` by absolute mean change over all instructions. Of R that are picked
        out of m, each interval has level 1 - 0.05 R / m (Benjamini and Yekutieli 2005).

    Both have the columns floor, the same mean of the noise floor, and q, of the test that the
    change is larger than it (`beyond`), Benjamini-Hochberg: over the sites of all categories, over
    the sites of "all", and over all m components. They are null without a noise floor.
    """

    layers: pa.Table
    components: pa.Table


def frequency_change(
    family: str,
    runs: tuple[Run, Run],
    ids: list[str],
    pairing: Pairing,
    floor: tuple[Run, Run] | None = None,
) -> FrequencyChange:
    """Change of frequency from the retained counts of two comparable runs.

    family: "neurons" or "experts"; ids: [n] the compared instructions, of which tokens were counted
    in all runs; pairing: theirs; floor: the two runs of the noise floor. Two passes over the counts
    of each pair of runs, a part at a time.
    """
    space = runs[0].space
    sites = family_sites(space, family)
    by_site, total = _by_site(family, runs, ids, sites)
    strongest = np.sort(np.argsort(-np.abs(total), kind="stable")[:STRONGEST])
    columns = _columns(family, runs, ids, strongest)
    floor_site, floor_columns = None, None
    if floor is not None:
        floor_site = _by_site(family, floor, ids, sites)[0]
        floor_columns = _columns(family, floor, ids, strongest)
    listed = component_table(space, family, strongest)
    named = {name: listed[name].to_pylist() for name in listed.column_names}
    level = 0.05 * len(strongest) / max(len(total), 1)
    figures = mean_estimates(pairing.means(columns)[-1], level)
    against = None
    if floor_columns is not None:
        mean, p = beyond(columns, floor_columns, pairing)
        # Those that were not picked count as tests with p = 1: q is at most too large.
        rest = np.ones(len(total) - len(strongest))
        against = mean[-1], q_values(np.concatenate([p[-1], rest]))[: len(strongest)]
    return FrequencyChange(
        layers=_layer_table(family, sites, by_site, floor_site, pairing),
        components=_with_floor(estimate_table(named, figures), against),
    )


def beyond(
    change: np.ndarray, floor: np.ndarray, pairing: Pairing
) -> tuple[np.ndarray, np.ndarray]:
    """([C + 1, F] mean of the floor, [C + 1, F] p that the change is larger than it).

    change, floor: [n, F] differences of two runs. p is the larger two-sided p of the means of
    change - floor and change + floor over clusters (Student's t); 1 if the two have not the
    direction of the change, and NaN if the error of neither is known.
    """
    means = (pairing.means(x) for x in (change, floor, change - floor, change + floor))
    floors, p = [], []
    for own, noise, *both in zip(*means, strict=True):
        tests = np.stack([_p_values(one) for one in both])
        tests[np.sign([one.value for one in both]) != np.sign(own.value)] = 1.0
        tests[:, ~np.isfinite(own.error)] = np.nan
        floors.append(noise.value)
        p.append(tests.max(0))
    return np.stack(floors), np.stack(p)


def _p_values(mean: ClusterMean) -> np.ndarray:
    """[F] two-sided p of means against 0; NaN where the error is not known."""
    return 2 * stats.t.sf(np.abs(mean.value) / mean.error, mean.freedom)


def _layer_table(
    family: str,
    sites: list[FamilySite],
    by_site: np.ndarray,
    floor: np.ndarray | None,
    pairing: Pairing,
) -> pa.Table:
    columns: dict[str, list] = {"family": [], "category": [], "layer": [], "kind": []}
    figures: list[Estimate] = []
    names = (*pairing.categories, "all")
    present = [at for at, group in enumerate(pairing.groups) if group.any()]
    means = pairing.means(by_site)
    for at in present:
        for site in sites:
            for key, value in zip(columns, (family, names[at], site.layer, site.kind), strict=True):
                columns[key].append(value)
        figures += mean_estimates(means[at])
    against = None
    if floor is not None:
        mean, p = beyond(by_site, floor, pairing)
        q = np.concatenate([q_values(p[:-1]), q_values(p[-1:])])
        against = mean[present].reshape(-1), q[present].reshape(-1)
    return _with_floor(estimate_table(columns, figures), against)


def _with_floor(table: pa.Table, against: tuple[np.ndarray, np.ndarray] | None) -> pa.Table:
    """The table with its columns floor and q; not a number is null."""
    for at, name in enumerate(("floor", "q")):
        values = np.full(len(table), np.nan) if against is None else against[at]
        table = table.append_column(name, pa.array(values, pa.float64(), from_pandas=True))
    return table


def _by_site(
    family: str, runs: tuple[Run, Run], ids: list[str], sites: list[FamilySite]
) -> tuple[np.ndarray, np.ndarray]:
    """([n, sites] mean change over each site's components, [components] summed change)."""
    space = runs[0].space
    by_site = np.zeros((len(ids), len(sites)))
    total = np.zeros(space.experts if family == "experts" else space.neurons)
    for rows, change in _changes(family, runs, ids):
        by_site[rows] = np.stack([change[:, s.part].mean(1) for s in sites], 1)
        total += change.sum(0)
    return by_site, total


def _columns(family: str, runs: tuple[Run, Run], ids: list[str], index: np.ndarray) -> np.ndarray:
    """[n, F] change of some components."""
    out = np.zeros((len(ids), len(index)))
    for rows, change in _changes(family, runs, ids):
        out[rows] = change[:, index]
    return out


def _changes(
    family: str, runs: tuple[Run, Run], ids: list[str]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows, change [rows, components] float32) of the compared instructions, part by part."""
    first, second = runs
    row_of = {name: row for row, name in enumerate(ids)}
    waiting: dict[str, tuple[Counted, int]] = {}
    others = second.store.results.counts()
    for _, counted in first.store.results.counts():
        names = [name for name in counted.ids if name in row_of]
        while any(name not in waiting for name in names):
            _, more = next(others)
            waiting.update({n: (more, row) for row, n in enumerate(more.ids) if n in row_of})
        if not names:
            continue
        at = {name: row for row, name in enumerate(counted.ids)}
        mine = [at[name] for name in names]
        pairs = [waiting.pop(name) for name in names]
        change = np.stack([getattr(part, family)[row] for part, row in pairs]).astype(np.float32)
        change /= np.array([part.tokens[row] for part, row in pairs])[:, None]
        change -= getattr(counted, family)[mine] / counted.tokens[mine, None].astype(np.float32)
        yield np.array([row_of[name] for name in names]), change
