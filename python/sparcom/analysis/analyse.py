"""`analyse`: everything that one run says, each figure with its interval and chance level."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from sparcom.analysis.components.component_tables import component_tables
from sparcom.analysis.components.conditional import ConditionalFrequency, conditional_frequency
from sparcom.analysis.components.family_components import FamilyComponents, family_components
from sparcom.analysis.components.lape import Lape, lape
from sparcom.analysis.data.bitsets import set_sizes
from sparcom.analysis.data.labels import Labels, encode
from sparcom.analysis.data.load import Loaded, load
from sparcom.analysis.data.membership import Membership
from sparcom.analysis.data.sites import FamilySite, families, family_sites
from sparcom.analysis.data.strata import overlap_share
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.overlap.achieved import achieved_sizes, size_warnings
from sparcom.analysis.overlap.family_overlap import FamilyOverlap, family_overlap
from sparcom.analysis.overlap.overlap_tables import OVERLAP_TABLES, overlap_tables
from sparcom.analysis.run_tables import categories_table, options_table, warnings_table
from sparcom.selection.rules import Selection
from sparcom.store import Run


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """The analysis of a run.

    categories: names.
    instructions: how many were counted; paired: those whose pairs were taken.
    overlaps: family -> pair statistics; components: "neurons" and "experts" -> component scores.
    tables: name -> Arrow table, as written to analysis/*.parquet; all that the report shows.
    warnings: what a reader must know before believing a figure.
    """

    categories: tuple[str, ...]
    instructions: int
    paired: int
    overlaps: dict[str, FamilyOverlap]
    components: dict[str, FamilyComponents]
    tables: dict[str, pa.Table]
    warnings: tuple[str, ...]


def analyse(run: Run, options: AnalysisOptions | None = None, *, write: bool = True) -> Analysis:
    """Analyse a stored run; writes analysis/*.parquet into it unless `write` is False.

    Raises InputError if the run has no profile, or one of other sets.

    >>> analysis = analyse(Run("runs/chat"))
    >>> analysis.overlaps["neurons"].effect
    """
    options = options or AnalysisOptions()
    loaded = load(run, options)
    labels, everyone = loaded.labels, loaded.memberships["neurons"]
    sizes = achieved_sizes(Selection(**run.manifest["selection"]), run.space, loaded.sizes)
    warnings = [*loaded.warnings, *size_warnings(sizes)]
    overlaps = _overlaps(run, loaded, options, warnings)
    components = _components(run, loaded, options, warnings)
    comparable = overlap_share(everyone.category, everyone.stratum, everyone.count)
    warnings += _stratum_warnings(labels, comparable)
    tables = {
        "analysis_options": options_table(options),
        "analysis_warnings": warnings_table(warnings),
        "categories": categories_table(loaded, comparable, run.space),
        "set_sizes": sizes,
        **overlap_tables(overlaps),
        **component_tables(components, loaded.memberships, run.space),
    }
    if write:
        _write(run, tables)
    return Analysis(
        categories=labels.categories,
        instructions=len(labels.ids),
        paired=len(loaded.sample),
        overlaps=overlaps,
        components=components,
        tables=tables,
        warnings=tuple(warnings),
    )


def _write(run: Run, tables: dict[str, pa.Table]) -> None:
    """Write the tables; those of pairs that an earlier analysis wrote go if there are none now."""
    for name in set(OVERLAP_TABLES) - set(tables):
        run.store.files.delete(f"analysis/{name}.parquet")
    for name, table in tables.items():
        run.store.write_table(name, table)


def _overlaps(
    run: Run, loaded: Loaded, options: AnalysisOptions, warnings: list[str]
) -> dict[str, FamilyOverlap]:
    out = {}
    for family in families(run.space) if loaded.bits else ():
        sites = family_sites(run.space, family)
        bits = _family_bits(loaded, family, sites)
        empty = set_sizes(bits) == 0
        if empty.any():
            names = [loaded.labels.ids[loaded.sample[row]] for row in np.flatnonzero(empty)[:3]]
            warnings.append(
                f"{family}: {int(empty.sum())} of {len(empty)} sets are empty ({', '.join(names)}"
                f"{', ...' if empty.sum() > 3 else ''}); they are left out of all pairs"
            )
        if (~empty).sum() < 2:
            warnings.append(f"{family}: fewer than two non-empty sets, so there are no pairs")
            continue
        kept = np.flatnonzero(~empty)
        labels, strata = loaded.labels.take(loaded.sample[kept]), loaded.strata.take(kept)
        left = np.bincount(labels.codes, minlength=len(labels.categories))
        before = np.bincount(loaded.labels.codes, minlength=len(left))
        warnings += [
            f"{family}: category {labels.categories[code]}: no set that is not empty, so no pair "
            "with it"
            for code in np.flatnonzero((left == 0) & (before > 0))
        ]
        out[family] = family_overlap(family, bits[kept], sites, labels, strata, options)
        warnings += _overlap_warnings(out[family])
    return out


def _family_bits(loaded: Loaded, family: str, sites: list[FamilySite]) -> np.ndarray:
    """The packed sets of a family; for one kind of site, everything outside it is cleared."""
    if family in loaded.bits:
        return loaded.bits[family]
    bits = loaded.bits["neurons"]
    keep = np.zeros(8 * bits.shape[1], bool)
    for site in sites:
        keep[site.part] = True
    return bits & np.packbits(keep, bitorder="little")


def _overlap_warnings(result: FamilyOverlap) -> list[str]:
    out = []
    if result.effect.value is None:
        out.append(f"{result.family}: no category effect: no pair of one type, or none of two")
    elif result.adjusted.effect.value is None:
        out.append(
            f"{result.family}: no two categories share a stratum, so the category effect cannot "
            "be told from length and source"
        )
    diagonal = result.distributions
    if diagonal and diagonal.same.sd == 0 and diagonal.different.sd == 0:
        out.append(f"{result.family}: all pairs overlap alike; are all counts equal?")
    return out


def _components(
    run: Run, loaded: Loaded, options: AnalysisOptions, warnings: list[str]
) -> dict[str, FamilyComponents]:
    lapes = _lapes(run, loaded.labels, options, warnings)
    whole = bool(loaded.bits) and len(loaded.sample) == len(loaded.labels.ids)
    out = {}
    for name, membership in loaded.memberships.items():
        out[name] = family_components(
            name, membership, run.space, loaded.strata, lapes.get(name), options,
            conditional=_conditional(run, membership) if name == "neurons" else None,
            sets=(loaded.bits[name], loaded.labels.codes) if whole else None,
        )  # fmt: skip
        if not len(out[name].test.tested):
            warnings.append(f"{name}: no component is held often enough to be tested")
    return out


def _conditional(run: Run, membership: Membership) -> ConditionalFrequency | None:
    """c / r of routed neurons, from the summed counts of the stored profile."""
    if "routed" not in run.space.kinds:
        return None
    return conditional_frequency(run, membership.categories, membership.prevalence())


def _lapes(
    run: Run, labels: Labels, options: AnalysisOptions, warnings: list[str]
) -> dict[str, Lape]:
    """The LAPE rule for neurons and experts, from the summed counts of the stored profile."""
    cells, sums = run.store.profiles.read(("category",), ("neuron_counts", "expert_counts"))
    tokens = cells["tokens"].to_numpy()
    if (tokens > 0).sum() < 2:
        warnings.append("the LAPE rule needs two categories with counted tokens; left out")
        return {}
    category = encode(cells["category"].to_pylist(), labels.categories)
    used = tokens > 0
    out = {}
    for name, column in (("neurons", "neuron_counts"), ("experts", "expert_counts")):
        if column in sums:
            found = lape(sums[column][used], tokens[used], options.lape)
            selected = np.zeros((len(labels.categories), sums[column].shape[1]), bool)
            selected[category[used]] = found.selected
            out[name] = replace(found, selected=selected)
    return out


def _stratum_warnings(labels: Labels, share: np.ndarray) -> list[str]:
    count = np.bincount(labels.codes, minlength=len(share))
    out = [
        f"category {name}: only {part:.0%} of its instructions have others of like length and "
        "source beside them; its specific components rest on those alone"
        for name, part, size in zip(labels.categories, share, count, strict=True)
        if size and part < 0.5 and (count > 0).sum() > 1
    ]
    collections = {
        name: len(np.unique(labels.clusters[labels.codes == code]))
        for code, name in enumerate(labels.categories)
    }
    for few in (1, 2):
        names = ", ".join(name for name, n in collections.items() if n == few)
        if names:
            out.append(
                f"{names}: instructions of {few} collection{'s' * (few > 1)} only, so that style "
                "cannot be told from type, and intervals by origin say little"
            )
    return out
