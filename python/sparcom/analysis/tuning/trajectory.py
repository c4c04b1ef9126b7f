"""`trajectory`: checkpoints along a training run, each against the first and the one before."""

from collections.abc import Sequence

import pyarrow as pa

from sparcom.analysis.data.comparable import check_comparable, name_of
from sparcom.analysis.data.labels import make_labels
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.run_tables import warnings_table
from sparcom.analysis.stats.estimate import estimate_table
from sparcom.analysis.tuning.alteration import FamilyAlteration
from sparcom.analysis.tuning.compare import (
    compare_sets,
    noise_floor_warnings,
    undetermined_warnings,
)
from sparcom.analysis.tuning.noise_floor import NoiseFloor
from sparcom.analysis.tuning.pairing import make_pairing
from sparcom.errors import InputError
from sparcom.store import Run

COLUMNS = ("step", "run", "against", "family", "category", "figure")


def trajectory(
    runs: Sequence[Run],
    options: AnalysisOptions | None = None,
    *,
    noise_floor: NoiseFloor | None = None,
    write: bool = True,
) -> pa.Table:
    """Checkpoints in order: one row per checkpoint, family, category ("all" last) and figure.

    Each is compared with the first checkpoint (`against` "first") and with the one before
    ("previous"). Figures: those of `FamilyAlteration`. p is corrected over the categories of one
    comparison, not over the steps. Writes trajectory.parquet and its warnings
    into the last run unless `write` is False.
    Raises InputError for fewer than two runs, and if runs or noise floor cannot be compared.

    >>> trajectory([Run("runs/step0"), Run("runs/step100"), Run("runs/step200")])
    """
    if len(runs) < 2:
        raise InputError(f"trajectory: needs two runs or more, got {len(runs)}")
    options = options or AnalysisOptions()
    warnings = noise_floor_warnings(noise_floor, *runs)
    rows: list[tuple] = []
    for step in range(1, len(runs)):
        # The second run's previous is the first: the same figures under both names.
        for against, other in (("first", runs[0]), ("previous", runs[step - 1])):
            changes, found = _changes(other, runs[step], options, noise_floor)
            warnings += [text for text in found if text not in warnings]
            where = (step, name_of(runs[step]), against)
            rows += [
                (*where, family, *figure)
                for family, change in changes.items()
                for figure in change.figures()
            ]
    *columns, estimates = zip(*rows, strict=True)
    table = estimate_table(dict(zip(COLUMNS, columns, strict=True)), estimates)
    if write:
        runs[-1].store.write_table("trajectory", table)
        runs[-1].store.write_table("trajectory_warnings", warnings_table(warnings))
    return table


def _changes(
    first: Run, second: Run, options: AnalysisOptions, noise_floor: NoiseFloor | None
) -> tuple[dict[str, FamilyAlteration], tuple[str, ...]]:
    """(change of each family, warnings) between two checkpoints."""
    common = check_comparable(first, second)
    labels = make_labels(common.table, first.categories)
    pairing = make_pairing(first, common, labels, options)
    changes = compare_sets(first, second, common, labels, pairing, noise_floor)
    return changes, (*common.warnings, *undetermined_warnings(pairing, labels))
