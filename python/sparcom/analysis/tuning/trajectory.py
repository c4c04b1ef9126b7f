"""`trajectory`: checkpoints along a training run, each against the first and the one before."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from sparcom.analysis.data.comparable import check_comparable, indices, name_of, paired_bits
from sparcom.analysis.data.labels import make_labels
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.overlap.layers import family_sites
from sparcom.analysis.stats.estimate import Estimate, estimate_table
from sparcom.analysis.stats.resample import bootstrap_weights
from sparcom.analysis.tuning.alteration import FamilyAlteration, family_alteration
from sparcom.analysis.tuning.compare import floor_warnings
from sparcom.analysis.tuning.noise_floor import NoiseFloor
from sparcom.errors import InputError
from sparcom.store import Run

COLUMNS = ("step", "run", "against", "family", "category", "figure")


def trajectory(
    runs: Sequence[Run],
    options: AnalysisOptions | None = None,
    *,
    floor: NoiseFloor | None = None,
    write: bool = True,
) -> pa.Table:
    """Checkpoints in order: one row per checkpoint, family, category ("all" last) and figure.

    Each is compared with the first checkpoint (`against` "first") and with the one before
    ("previous"). Figures: overlap (mean Jaccard), layer shift, and with a floor "noise floor"
    and "beyond floor", as in `FamilyAlteration`. Writes trajectory.parquet and its warnings into
    the last run unless `write` is False.
    Raises InputError for fewer than two runs, and where runs or floor do not compare.

    >>> trajectory([Run("runs/step0"), Run("runs/step100"), Run("runs/step200")])
    """
    if len(runs) < 2:
        raise InputError(f"trajectory: needs two runs or more, got {len(runs)}")
    options = options or AnalysisOptions()
    warnings = floor_warnings(floor, *runs)
    rows: list[tuple] = []
    figures: list[Estimate] = []
    for step in range(1, len(runs)):
        # The second run's previous is the first: the same figures under both names.
        others = (("first", runs[0]), ("previous", runs[step - 1]))
        for against, other in others:
            changes, found = _changes(other, runs[step], options, floor)
            warnings += found
            for change in changes:
                for category, figure, value in _figures(change):
                    where = (step, name_of(runs[step]), against)
                    rows.append((*where, change.family, category, figure))
                    figures.append(value)
    columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    table = estimate_table(columns, figures)
    if write:
        texts = pa.array(dict.fromkeys(warnings), pa.string())
        runs[-1].store.write_analysis("trajectory", table)
        runs[-1].store.write_analysis("trajectory_warnings", pa.table({"warning": texts}))
    return table


def _changes(
    first: Run, second: Run, options: AnalysisOptions, floor: NoiseFloor | None
) -> tuple[list[FamilyAlteration], tuple[str, ...]]:
    """(change of each family, warnings) between two checkpoints."""
    common = check_comparable(first, second)
    labels = make_labels(common.table, first.categories)
    rng = np.random.default_rng(options.seed)
    weights = bootstrap_weights(labels.codes, np.arange(len(labels.ids)), options.bootstraps, rng)
    changes = []
    for family in indices(first):
        bits = paired_bits(first, second, common, family)
        against = None if floor is None else floor.values(family, labels.ids)
        changes.append(
            family_alteration(
                family, *bits, first.space, family_sites(first.space, family), labels.codes,
                labels.categories, weights, rng, against,
            )
        )  # fmt: skip
    return changes, common.warnings


def _figures(change: FamilyAlteration) -> list[tuple[str, str, Estimate]]:
    """(category, figure, estimate) of everything that is followed."""
    return [
        (category, figure, estimates[at])
        for at, category in enumerate((*change.categories, "all"))
        for figure, estimates in change.figures().items()
    ]
