"""`analyse`: everything that one run says, each figure with its interval and chance level."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from sparcom.analysis.components.component_tables import component_tables
from sparcom.analysis.components.conditional import ConditionalFrequency, conditional_frequency
from sparcom.analysis.components.family_components import FamilyComponents, family_components
from sparcom.analysis.components.lape import Lape, lape
from sparcom.analysis.data.bitsets import set_sizes
from sparcom.analysis.data.load import Labels, Loaded, load
from sparcom.analysis.data.profile import Profile
from sparcom.analysis.data.strata import overlap_share
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.overlap.achieved import achieved_sizes, size_warnings
from sparcom.analysis.overlap.family_overlap import FamilyOverlap, family_overlap
from sparcom.analysis.overlap.layers import FamilySite, families, family_sites
from sparcom.analysis.overlap.overlap import encode
from sparcom.analysis.overlap.overlap_tables import overlap_tables
from sparcom.selection.rules import Selection
from sparcom.store import Run


@dataclass(frozen=True)
class Analysis:
    """The analysis of a run.

    categories, sources, strata: names.
    instructions: with sets; paired: those whose pairs were taken.
    overlaps: family -> pair statistics; components: "neurons" and "experts" -> component scores.
    sizes: nominal and achieved set sizes, one row per group that was ranked together.
    stratum_overlap: category -> share of its instructions that share a stratum with another
        category; what is not shared cannot be told from length and source.
    tables: name -> Arrow table, as written to analysis/*.parquet.
    warnings: what a reader must know before believing a figure.
    """

    categories: tuple[str, ...]
    sources: tuple[str, ...]
    strata: tuple[str, ...]
    instructions: int
    paired: int
    overlaps: dict[str, FamilyOverlap]
    components: dict[str, FamilyComponents]
    sizes: pa.Table
    stratum_overlap: dict[str, float]
    tables: dict[str, pa.Table]
    warnings: tuple[str, ...]


def analyse(run: Run, options: AnalysisOptions | None = None, *, write: bool = True) -> Analysis:
    """Analyse a stored run; writes analysis/*.parquet into it unless `write` is False.

    >>> analysis = analyse(Run("runs/chat"))
    >>> analysis.overlaps["neurons"].effect
    """
    options = options or AnalysisOptions()
    loaded = load(run, options)
    sizes = achieved_sizes(Selection(**run.manifest["selection"]), run.space, loaded.sizes)
    warnings = [*loaded.warnings, *size_warnings(sizes)]
    overlaps = _overlaps(run, loaded, options, warnings)
    components = _components(run, loaded, options, warnings)
    labels = loaded.labels
    share = overlap_share(labels.codes, labels.strata.codes, len(labels.categories))
    warnings += _stratum_warnings(labels, share)
    tables = {
        "set_sizes": sizes,
        **overlap_tables(overlaps),
        **component_tables(components, loaded.profiles, run.space),
    }
    if write:
        for name, table in tables.items():
            run.store.write_table(name, table)
    return Analysis(
        labels.categories,
        labels.strata.sources,
        labels.strata.names,
        len(labels.ids),
        len(loaded.sample),
        overlaps,
        components,
        sizes,
        dict(zip(labels.categories, share.tolist(), strict=True)),
        tables,
        tuple(warnings),
    )


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
        labels = loaded.labels.take(loaded.sample[~empty])
        left = np.bincount(labels.codes, minlength=len(labels.categories))
        before = np.bincount(loaded.labels.codes, minlength=len(left))
        warnings += [
            f"{family}: category {labels.categories[code]}: no set that is not empty, so no pair "
            "with it"
            for code in np.flatnonzero((left == 0) & (before > 0))
        ]
        out[family] = family_overlap(family, bits[~empty], sites, labels, options)
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
    for name, profile in loaded.profiles.items():
        out[name] = family_components(
            name, profile, run.space, loaded.labels.strata, lapes.get(name), options,
            conditional=_conditional(run, profile) if name == "neurons" else None,
            sets=(loaded.bits[name], loaded.labels.codes) if whole else None,
        )  # fmt: skip
        if not len(out[name].test.tested):
            warnings.append(f"{name}: no component is held often enough to be tested")
    return out


def _conditional(run: Run, profile: Profile) -> ConditionalFrequency | None:
    """c / r of routed neurons, from the summed counts of the stored profile."""
    if "routed" not in run.space.kinds or not run.store.profiles.spans():
        return None
    return conditional_frequency(run, profile.categories, profile.prevalence())


def _lapes(
    run: Run, labels: Labels, options: AnalysisOptions, warnings: list[str]
) -> dict[str, Lape]:
    """The LAPE rule for neurons and experts, from the summed counts of the stored profile."""
    if not run.store.profiles.spans():
        warnings.append(
            "no profile is stored: the LAPE rule and conditional frequencies, which need it, are "
            "left out"
        )
        return {}
    cells, sums = run.store.profiles.read(("category",), ("neuron_counts", "expert_counts"))
    tokens = cells["tokens"].to_numpy()
    if (tokens > 0).sum() < 2:
        warnings.append("the LAPE rule needs two categories with counted tokens; left out")
        return {}
    category = encode(cells["category"].to_pylist(), labels.categories)[1]
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
        name: len(np.unique(labels.origins[labels.codes == code]))
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
