"""How firing frequencies changed: delta p of neurons and delta f of experts, paired.

p = c / T and f = r / T, each with its own run's T: written answers differ in length.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sparcom.analysis.data.sites import FamilySite, family_sites
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
    """

    layers: pa.Table
    components: pa.Table


def frequency_change(
    family: str,
    first: Run,
    second: Run,
    ids: list[str],
    pairing: Pairing,
) -> FrequencyChange:
    """Change of frequency from the retained counts of two comparable runs.

    family: "neurons" or "experts"; ids: [n] the compared instructions, of which tokens were counted
    in both runs; pairing: theirs. Two passes over the counts, a part at a time.
    """
    sites = family_sites(first.space, family)
    row_of = {name: row for row, name in enumerate(ids)}
    by_site = np.zeros((len(ids), len(sites)))
    total = np.zeros(first.space.experts if family == "experts" else first.space.neurons)
    for rows, change in _changes(first, second, row_of, family):
        by_site[rows] = np.stack([change[:, s.part].mean(1) for s in sites], 1)
        total += change.sum(0)
    strongest = np.sort(np.argsort(-np.abs(total), kind="stable")[:STRONGEST])
    columns = np.zeros((len(ids), len(strongest)))
    for rows, change in _changes(first, second, row_of, family):
        columns[rows] = change[:, strongest]
    listed = component_table(first.space, family, strongest)
    level = 0.05 * len(strongest) / max(len(total), 1)
    figures = mean_estimates(pairing.means(columns)[-1], level)
    table = estimate_table({n: listed[n].to_pylist() for n in listed.column_names}, figures)
    return FrequencyChange(layers=_layer_table(family, sites, by_site, pairing), components=table)


def _layer_table(
    family: str, sites: list[FamilySite], by_site: np.ndarray, pairing: Pairing
) -> pa.Table:
    columns: dict[str, list] = {"family": [], "category": [], "layer": [], "kind": []}
    figures: list[Estimate] = []
    names = (*pairing.categories, "all")
    for name, group, mean in zip(names, pairing.groups, pairing.means(by_site), strict=True):
        if not group.any():
            continue
        for site in sites:
            for key, value in zip(columns, (family, name, site.layer, site.kind), strict=True):
                columns[key].append(value)
        figures += mean_estimates(mean)
    return estimate_table(columns, figures)


def _changes(
    first: Run, second: Run, row_of: dict[str, int], family: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows, change [rows, components] float32) of the compared instructions, part by part."""
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
