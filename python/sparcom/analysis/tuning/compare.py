"""`compare`: how tuning changed a model's sets and frequencies, instruction by instruction."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sparcom.analysis.data.bitsets import set_sizes
from sparcom.analysis.data.comparable import (
    Common,
    check_comparable,
    indices,
    name_of,
    paired_bits,
    weights_of,
)
from sparcom.analysis.data.labels import Labels, make_labels
from sparcom.analysis.data.sites import family_sites
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.stats.estimate import estimate_table
from sparcom.analysis.tuning.alteration import FamilyAlteration, family_alteration
from sparcom.analysis.tuning.frequency_change import FrequencyChange, frequency_change
from sparcom.analysis.tuning.moved import TWO_SIDED
from sparcom.analysis.tuning.noise_floor import NoiseFloor
from sparcom.analysis.tuning.pairing import Pairing, make_pairing
from sparcom.clusters import is_unclustered
from sparcom.store import Run


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A base run against a tuned one.

    categories: [C]; instructions: how many are compared.
    alterations: "neurons", "experts" -> change of sets.
    frequencies: the same -> change of p and f; empty if a run retains no counts.
    noise_floor: what it is compared with; None if none was given.
    tables: name -> Arrow table, as written to the tuned run's analysis/*.parquet.
    """

    base: str
    tuned: str
    categories: tuple[str, ...]
    instructions: int
    alterations: dict[str, FamilyAlteration]
    frequencies: dict[str, FrequencyChange]
    noise_floor: NoiseFloor | None
    tables: dict[str, pa.Table]
    warnings: tuple[str, ...]


def compare(
    base: Run,
    tuned: Run,
    options: AnalysisOptions | None = None,
    *,
    noise_floor: NoiseFloor | None = None,
    write: bool = True,
) -> Comparison:
    """Compare two runs; writes alteration_*.parquet into the tuned run unless `write` is False.

    Raises InputError if the runs cannot be compared (`check_comparable`), or if the noise floor was
    measured in another way, or lacks one of the instructions.

    >>> compare(Run("runs/base"), Run("runs/chat")).alterations["neurons"].overlap[-1]
    """
    options = options or AnalysisOptions()
    common = check_comparable(base, tuned)
    labels = make_labels(common.table, base.categories)
    warnings = list(common.warnings)
    if weights_of(base) is not None and weights_of(base) == weights_of(tuned):
        warnings.append(
            f"{name_of(base)} and {name_of(tuned)} have the same weights: what differs is "
            "rounding, not tuning"
        )
    warnings += noise_floor_warnings(noise_floor, base, tuned)
    pairing = make_pairing(base, common, labels, options)
    warnings += undetermined_warnings(pairing, labels)
    alterations = compare_sets(base, tuned, common, labels, pairing, noise_floor)
    for family in alterations:
        warnings += _empty_warnings(family, *paired_bits(base, tuned, common, family))
    frequencies = _frequencies(base, tuned, common, labels, pairing, noise_floor, warnings)
    tables = _tables(labels, common, alterations, frequencies)
    tables["alteration_summary"] = _summary_table(name_of(base), alterations)
    tables["alteration_warnings"] = pa.table({"warning": pa.array(warnings, pa.string())})
    if write:
        for name, table in tables.items():
            tuned.store.write_table(name, table)
    return Comparison(
        base=name_of(base),
        tuned=name_of(tuned),
        categories=labels.categories,
        instructions=len(labels.ids),
        alterations=alterations,
        frequencies=frequencies,
        noise_floor=noise_floor,
        tables=tables,
        warnings=tuple(warnings),
    )


def noise_floor_warnings(noise_floor: NoiseFloor | None, *runs: Run) -> list[str]:
    """What a reader must know of the noise floor; raises InputError if it does not fit the runs."""
    if noise_floor is not None:
        return noise_floor.check(*runs)
    return [
        "no noise floor given: which categories moved more than the same model differs from "
        "itself in another dtype is not known"
    ]


def compare_sets(
    first: Run,
    second: Run,
    common: Common,
    labels: Labels,
    pairing: Pairing,
    noise_floor: NoiseFloor | None,
) -> dict[str, FamilyAlteration]:
    """Family -> change of its sets. labels, pairing: of the shared instructions."""
    out = {}
    for family in indices(first):
        sets = paired_bits(first, second, common, family)
        floor = None if noise_floor is None else noise_floor.sets(family, labels.ids)
        sites = family_sites(first.space, family)
        out[family] = family_alteration(family, sets, first.space, sites, pairing, floor)
    return out


def undetermined_warnings(pairing: Pairing, labels: Labels) -> list[str]:
    """What the clusters do not bear, and instructions of which no cluster is known."""
    few = [
        f"{name} ({count} clusters)"
        for name, count in zip((*pairing.categories, "all"), pairing.cluster_counts, strict=True)
        if count < TWO_SIDED
    ]
    out = []
    if few:
        out.append(f"undetermined: too few clusters for tests of {', '.join(few)}")
    alone = sum(is_unclustered(name) for name in labels.cluster_names)
    if alone:
        out.append(
            f"{alone} instructions name neither a cluster nor an origin; each is taken as "
            "independent of all others"
        )
    return out


def _empty_warnings(family: str, first: np.ndarray, second: np.ndarray) -> list[str]:
    empty = set_sizes(first) == 0, set_sizes(second) == 0
    out = []
    if one := int((empty[0] != empty[1]).sum()):
        out.append(
            f"{family}: {one} instructions have an empty set in one of the runs; their overlap is "
            "0, and their layers are those of the other"
        )
    if both := int((empty[0] & empty[1]).sum()):
        out.append(
            f"{family}: {both} instructions have empty sets in both runs; counted as unchanged"
        )
    return out


def _frequencies(
    base: Run,
    tuned: Run,
    common: Common,
    labels: Labels,
    pairing: Pairing,
    noise_floor: NoiseFloor | None,
    warnings: list[str],
) -> dict[str, FrequencyChange]:
    if without := _without_counts(base, tuned):
        warnings.append(f"{without}: no counts retained, so no change of frequency")
        return {}
    floor = None if noise_floor is None else (noise_floor.run, noise_floor.other)
    if floor is not None and (without := _without_counts(*floor)):
        warnings.append(
            f"{without}: no counts retained, so changes of frequency are not compared with the "
            "noise floor"
        )
        floor = None
    counted = (base.sets.tokens[common.first] > 0) & (tuned.sets.tokens[common.second] > 0)
    if floor is not None and noise_floor is not None:
        counted &= noise_floor.counted(labels.ids)
    if nothing := int((~counted).sum()):
        warnings.append(
            f"{nothing} instructions have no counted token in one of the runs (an answer that ends "
            "at once): they have no frequencies"
        )
    rows = np.flatnonzero(counted)
    if not len(rows):
        return {}
    ids = [labels.ids[row] for row in rows]
    return {
        family: frequency_change(family, (base, tuned), ids, pairing.take(rows), floor)
        for family in indices(base)
    }


def _without_counts(*runs: Run) -> str:
    """The names of the runs that retain no counts."""
    return " and ".join(name_of(run) for run in runs if not run.store.results.parts("counts"))


def _tables(
    labels: Labels,
    common: Common,
    alterations: dict[str, FamilyAlteration],
    frequencies: dict[str, FrequencyChange],
) -> dict[str, pa.Table]:
    out: dict[str, pa.Table] = {}
    for family, result in alterations.items():
        out[f"alteration_{family}"] = _instruction_table(labels, common, result)
        out[f"alteration_layers_{family}"] = result.layers
        out[f"alteration_components_{family}"] = result.components
    for family, change in frequencies.items():
        out[f"frequency_layers_{family}"] = change.layers
        out[f"frequency_components_{family}"] = change.components
    return out


def _summary_table(base: str, alterations: dict[str, FamilyAlteration]) -> pa.Table:
    """One row for each family, category ("all" last) and figure."""
    rows = [
        (base, family, *figure)
        for family, change in alterations.items()
        for figure in change.figures()
    ]
    *columns, estimates = zip(*rows, strict=True)
    names = ("base", "family", "category", "figure")
    return estimate_table(dict(zip(names, columns, strict=True)), estimates)


def _instruction_table(labels: Labels, common: Common, result: FamilyAlteration) -> pa.Table:
    return pa.table(
        {
            "id": list(labels.ids),
            "category": [labels.categories[code] for code in labels.codes],
            "source": common.table["source"],
            "jaccard": result.jaccard,
            "before": result.before,
            "after": result.after,
            "kept": result.kept,
            "gained": result.after - result.kept,
            "lost": result.before - result.kept,
        }
    )
