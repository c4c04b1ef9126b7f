"""Attributions of a run, and how they agree with what fires specifically, as tables."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sparcom.analysis.components.agreement import (
    Sums,
    correlation_estimates,
    correlations,
    firing_classes,
    overlap,
    reliabilities,
    specificity,
)
from sparcom.analysis.data.labels import encode
from sparcom.analysis.data.load import Loaded
from sparcom.analysis.data.sites import family_sites
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.stats.estimate import Estimate, estimate_table, known
from sparcom.analysis.stats.jackknife import jackknife
from sparcom.attribution.sums import Attribution, is_attributed, of_experts
from sparcom.component_list import component_table
from sparcom.errors import InputError
from sparcom.store import Run

AGREEMENT_TABLES = ("attribution_neurons", "attribution_experts", "agreement")
SIZES = (10, 20, 50, 100, 200, 500, 1000, 2000)
"""Members of the lists whose overlap is told."""
SAMPLE = 8192
"""Components that intervals and reliabilities rest on, at random if there are more."""
FIGURES = ("rank correlation", "rank correlation, equal firing")


def agreement_tables(
    run: Run, loaded: Loaded, options: AnalysisOptions, warnings: list[str]
) -> dict[str, pa.Table]:
    """The tables of a run in which something is attributed; {} if nothing is.

    Why tables are left out is added to `warnings`.
    """
    if not is_attributed(run):
        return {}
    try:
        stored = Attribution(run)
    except InputError as error:
        warnings.append(f"attribution is left out: {error}")
        return {}
    families = ("neurons", *(["experts"] if run.space.experts else []))
    out = {f"attribution_{name}": _components(run, stored, name) for name in families}
    names = [name for name in loaded.labels.categories if name in set(stored.categories)]
    if not run.store.results.parts("counts"):
        warnings.append("agreement with attribution is left out: the run retains no counts")
    elif len(names) < 2:
        warnings.append("agreement with attribution is left out: one category is attributed")
    else:
        out["agreement"] = _agreement(run, stored, loaded, names, families, options)
    return out


def _components(run: Run, stored: Attribution, family: str) -> pa.Table:
    """One row for each component: mean attribution in each category, by each rule."""
    size = run.space.neurons if family == "neurons" else run.space.experts
    table = component_table(run.space, family, np.arange(size))
    for rule in stored.rules:
        for name, values in stored.means(rule).items():
            own = values if family == "neurons" else of_experts(run.space, values)
            table = table.append_column(f"{rule}_{name}", pa.array(own, pa.float64()))
    return table


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Which part of the clusters each cluster is in, and what the parts are drawn within."""

    of_cluster: dict[str, int]
    stratum: np.ndarray

    def rows(self, names: list[str], categories: list[str], clusters: list[str]) -> np.ndarray:
        """[n] the row of each instruction in sums of part x category; -1 for other categories."""
        known = np.array([name in names for name in categories], bool)
        code = encode([c if k else names[0] for c, k in zip(categories, known, strict=True)], names)
        part = np.array([self.of_cluster.get(cluster, -1) for cluster in clusters], np.int64)
        return np.where(known & (part >= 0), part * len(names) + code, -1)


def _parts(loaded: Loaded, seed: int) -> _Parts:
    """Clusters are drawn within their category; those that hold several, among each other."""
    labels = loaded.labels
    held = np.unique(np.stack([labels.clusters, labels.codes]), axis=1)
    drawn_from = np.full(len(labels.cluster_names), -1)
    drawn_from[held[0]] = np.where(np.bincount(held[0])[held[0]] > 1, -1, held[1])
    rng = np.random.default_rng(seed)
    left_out = jackknife(drawn_from[labels.clusters], labels.clusters, rng)
    names = [labels.cluster_names[code] for code in labels.clusters]
    part = left_out.weights.argmin(0).tolist()
    return _Parts(of_cluster=dict(zip(names, part, strict=True)), stratum=left_out.stratum)


def _agreement(
    run: Run, stored: Attribution, loaded: Loaded, names: list[str], families: tuple[str, ...],
    options: AnalysisOptions,
) -> pa.Table:  # fmt: skip
    parts, rng = _parts(loaded, options.seed), np.random.default_rng(options.seed)
    rows: list[tuple[str, str, str, str, int | None]] = []
    estimates: list[Estimate] = []
    for family in families:
        sites = _sites_of(run, family)
        kept = np.sort(rng.permutation(len(sites))[:SAMPLE])
        place = parts.rows(
            names,
            [loaded.labels.categories[code] for code in loaded.labels.codes],
            [loaded.labels.cluster_names[code] for code in loaded.labels.clusters],
        )
        fires, whole = _frequencies(run, loaded, family, place, len(names), parts, kept)
        for rule in stored.rules:
            matters, attributed = _attributions(stored, rule, family, names, parts, kept)
            value = correlations(whole, attributed, sites)
            found = correlation_estimates(value, fires, matters, sites[kept], parts.stratum)
            trust = reliabilities(fires, matters, sites[kept], parts.stratum, rng)
            for c, name in enumerate(names):
                key = family, rule, name
                for figure, of in zip(FIGURES, found, strict=True):
                    rows.append((*key, figure, None))
                    estimates.append(of[c])
                for what, of_ranking in zip(("firing", "attribution"), trust, strict=True):
                    rows.append((*key, f"reliability, {what}", None))
                    estimates.append(Estimate(known(of_ranking[c])))
                classes = firing_classes(whole[c], sites)
                own = specificity(whole)[c]
                sizes = [size for size in SIZES if size <= len(sites) // 4]
                told = [overlap(own, attributed[c], classes, size, rng) for size in sizes]
                for k, one in dict(told).items():  # short lists end at what there is
                    if k:
                        rows.append((*key, "overlap", k))
                        estimates.append(one)
    columns = [list(column) for column in zip(*rows, strict=True)]
    heads = dict(zip(("family", "rule", "category", "figure"), columns, strict=False))
    return estimate_table({**heads, "k": pa.array(columns[4], pa.int64())}, estimates)


def _sites_of(run: Run, family: str) -> np.ndarray:
    """[components] code of each one's site."""
    widths = [site.width for site in family_sites(run.space, family)]
    return np.repeat(np.arange(len(widths)), widths)


_Row = tuple[int, np.ndarray, int]
"""(row of part x category or -1, [components] sums, of how many instructions)."""


def _sums(
    rows: Iterable[_Row],
    categories: int, parts: int, kept: np.ndarray, width: int,
) -> tuple[Sums, np.ndarray]:  # fmt: skip
    """(sums over part x category of the kept components, [C, width] means of all components)."""
    values = np.zeros((parts * categories, len(kept)))
    counts = np.zeros(parts * categories)
    total = np.zeros((categories, width))
    for row, one, number in rows:
        if row >= 0:
            values[row] += one[kept]
            counts[row] += number
            total[row % categories] += one
    shape = parts, categories
    whole = counts.reshape(shape).sum(0)
    return Sums(values=values.reshape(*shape, -1), counts=counts.reshape(shape)), (
        total / whole[:, None]
    )


def _frequencies(
    run: Run, loaded: Loaded, family: str, place: np.ndarray, categories: int, parts: _Parts,
    kept: np.ndarray,
) -> tuple[Sums, np.ndarray]:  # fmt: skip
    """c / T, or r / T of experts, of all counted instructions."""
    row_of = dict(zip(loaded.labels.ids, place.tolist(), strict=True))

    def rows() -> Iterator[_Row]:
        for _, counted in run.store.results.counts():
            each = zip(counted.ids, counted.tokens.tolist(), getattr(counted, family), strict=True)
            for name, tokens, counts in each:
                if tokens:
                    yield row_of.get(name, -1), counts / tokens, 1

    width = run.space.neurons if family == "neurons" else run.space.experts
    return _sums(rows(), categories, len(parts.stratum), kept, width)


def _attributions(
    stored: Attribution, rule: str, family: str, names: list[str], parts: _Parts, kept: np.ndarray
) -> tuple[Sums, np.ndarray]:
    place = parts.rows(names, stored.categories, stored.clusters)

    def rows() -> Iterator[_Row]:
        for at, values in stored.rows(rule):
            own = values if family == "neurons" else of_experts(stored.space, values)
            number = stored.instructions[at].tolist()
            yield from zip(place[at].tolist(), own, number, strict=True)

    width = stored.space.neurons if family == "neurons" else stored.space.experts
    return _sums(rows(), len(names), len(parts.stratum), kept, width)
