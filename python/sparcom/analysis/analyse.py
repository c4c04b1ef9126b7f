"""`analyse`: everything that one run says, each figure with its interval and chance level."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from sparcom.analysis.components.agreement_tables import AGREEMENT_TABLES, agreement_tables
from sparcom.analysis.components.always_on import always_on, category_frequencies
from sparcom.analysis.components.component_tables import TEST_TABLES, component_tables
from sparcom.analysis.components.conditional import ConditionalFrequency, conditional_frequency
from sparcom.analysis.components.family_components import (
    Evidence,
    FamilyComponents,
    family_components,
)
from sparcom.analysis.components.lape import Lape, lape
from sparcom.analysis.data.bitsets import set_sizes
from sparcom.analysis.data.frequencies import Frequencies, read_frequencies
from sparcom.analysis.data.labels import Labels, encode
from sparcom.analysis.data.load import Loaded, load
from sparcom.analysis.data.membership import Membership
from sparcom.analysis.data.sites import FamilySite, families, family_sites
from sparcom.analysis.data.strata import overlap_share
from sparcom.analysis.decoding import decoding_table, decoding_warnings, decodings
from sparcom.analysis.explore.examples import examples_table
from sparcom.analysis.explore.instructions import INSTRUCTION_TABLES, instruction_tables
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.overlap.achieved import achieved_sizes, size_warnings
from sparcom.analysis.overlap.family_overlap import FamilyOverlap, family_overlap
from sparcom.analysis.overlap.overlap_tables import OVERLAP_TABLES, overlap_tables
from sparcom.analysis.run_tables import categories_table, options_table, warnings_table
from sparcom.analysis.stability import stability, stability_table, why_no_stability
from sparcom.clusters import is_unclustered
from sparcom.selection.rules import Selection
from sparcom.store import Run

OPTIONAL_TABLES = (
    "decoding", "stability", "examples", *INSTRUCTION_TABLES, *AGREEMENT_TABLES
)  # fmt: skip
"""Tables that need sets, counts, or an attribution."""


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
    frequencies = read_frequencies(run, labels, options.seed)
    components = _components(run, loaded, frequencies, options, warnings)
    decoded = decodings(loaded, frequencies, options)
    warnings += decoding_warnings(decoded, labels)
    left_out = why_no_stability(run, loaded)
    warnings += [f"stability is left out: {left_out}"] if left_out else []
    agreement = agreement_tables(run, loaded, options, warnings)
    comparable = overlap_share(everyone.category, everyone.stratum, everyone.count)
    warnings += _stratum_warnings(labels, comparable)
    tables = {
        "analysis_options": options_table(options),
        "analysis_warnings": warnings_table(warnings),
        "categories": categories_table(loaded, comparable, run.space),
        "set_sizes": sizes,
        **overlap_tables(overlaps),
        **component_tables(components, loaded.memberships, run.space),
        **({"decoding": decoding_table(decoded)} if decoded else {}),
        **_explored(run, loaded, components, frequencies, options),
        **agreement,
        **({} if left_out else {"stability": stability_table(stability(run, loaded, options))}),
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
    """Write the tables; those of an earlier analysis that this one has not are deleted."""
    for name in {*OVERLAP_TABLES, *TEST_TABLES, *OPTIONAL_TABLES} - set(tables):
        run.store.files.delete(f"analysis/{name}.parquet")
    for name, table in tables.items():
        run.store.write_table(name, table)


def _explored(
    run: Run,
    loaded: Loaded,
    components: dict[str, FamilyComponents],
    frequencies: dict[str, Frequencies],
    options: AnalysisOptions,
) -> dict[str, pa.Table]:
    """What a reader of the page opens: instructions, pairs, and the text examples of units."""
    bits = {
        family: _family_bits(loaded, family, family_sites(run.space, family))
        for family in (families(run.space) if loaded.bits else ())
    }
    out = instruction_tables(run, loaded, bits, frequencies, options)
    if frequencies and options.examples:
        out["examples"] = examples_table(
            components, loaded.memberships, frequencies, loaded.labels, run.space, options.examples
        )
    return out


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
        rows = loaded.sample[kept]
        labels, strata = loaded.labels.take(rows), loaded.strata.take(rows)
        lexical = loaded.lexical[np.ix_(kept, kept)]
        left = np.bincount(labels.codes, minlength=len(labels.categories))
        before = np.bincount(loaded.labels.codes, minlength=len(left))
        warnings += [
            f"{family}: category {labels.categories[code]}: no set that is not empty, so no pair "
            "with it"
            for code in np.flatnonzero((left == 0) & (before > 0))
        ]
        out[family] = family_overlap(family, bits[kept], sites, labels, strata, lexical, options)
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
    if result.effects.raw.value is None:
        out.append(f"{result.family}: no category effect: no pair of one type, or none of two")
    elif result.effects.between.value is None:
        out.append(
            f"{result.family}: undetermined: no category has two clusters, so that the category "
            "effect cannot be told from what the instructions of a cluster have in common"
        )
    elif result.effects.adjusted.value is None:
        out.append(
            f"{result.family}: no two categories share a stratum, so the category effect cannot "
            "be told from length and source"
        )
    elif not result.determined:
        clusters = len(np.unique(result.nodes.cluster))
        out.append(
            f"{result.family}: undetermined: {clusters} clusters are too few to tell the category "
            "effect from what each cluster has in common"
        )
    diagonal = result.distributions
    if diagonal and diagonal.same.sd == 0 and diagonal.different.sd == 0:
        out.append(f"{result.family}: all pairs overlap alike; are all counts equal?")
    return out


def _components(
    run: Run,
    loaded: Loaded,
    found: dict[str, Frequencies],
    options: AnalysisOptions,
    warnings: list[str],
) -> dict[str, FamilyComponents]:
    lapes = _lapes(run, loaded.labels, options, warnings)
    whole = bool(loaded.bits) and len(loaded.sample) == len(loaded.labels.ids)
    if not found:
        warnings.append(
            "the run retains no counts, so that no component can be tested: count it again with "
            "--retain counts"
        )
    out = {}
    for name, membership in loaded.memberships.items():
        frequency = category_frequencies(run, loaded.labels.categories, name)
        evidence = Evidence(
            labels=loaded.labels,
            strata=loaded.strata,
            frequencies=found.get(name),
            bits=loaded.bits[name] if whole else None,
        )
        out[name] = family_components(
            name, membership, run.space, evidence, lapes.get(name), frequency,
            always_on(run, frequency, name, options), options,
            conditional=_conditional(run, membership) if name == "neurons" else None,
        )  # fmt: skip
        warnings += _test_warnings(out[name])
        if name in found and len(found[name].rows) < len(loaded.labels.ids):
            warnings.append(f"{name}: the tests rest on a sample of {len(found[name].rows)} "
                            f"of {len(loaded.labels.ids)} instructions")  # fmt: skip
    return out


def _test_warnings(result: FamilyComponents) -> list[str]:
    test = result.test
    if test is None:
        return []
    few = [
        f"{name} ({clusters} clusters)"
        for name, clusters, known in zip(
            test.categories, test.inside_clusters, test.determined, strict=True
        )
        if not known
    ]
    out = []
    if few:
        out.append(
            f"{result.family}: undetermined: too few clusters of like length and source to test "
            f"the components of {', '.join(few)}"
        )
    apart = [
        f"{test.categories[a]} and {test.categories[b]}"
        for a, b in np.argwhere(np.triu(~test.comparable))
    ]
    if apart:
        out.append(
            f"{result.family}: {'; '.join(apart)} share too few clusters of like length and source "
            "to be compared: specific to one of them asks only for the plain difference from the "
            "other"
        )
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
        "source beside them; its tests rest on those alone"
        for name, part, size in zip(labels.categories, share, count, strict=True)
        if size and part < 0.5 and (count > 0).sum() > 1
    ]
    alone = sum(is_unclustered(name) for name in labels.cluster_names)
    if alone:
        out.append(
            f"{alone} instructions name neither a cluster nor an origin; each is taken as "
            "independent of all others: name the field they are alike in with --cluster"
        )
    return out
