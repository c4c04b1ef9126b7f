"""`trajectory`: checkpoints along a training run, each against the first and the one before."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from sparcom.analysis.alteration import paired_jaccard
from sparcom.analysis.comparable import check_comparable, indices, name_of, paired_bits
from sparcom.analysis.estimate import Estimate, estimate, estimate_table
from sparcom.analysis.load import Labels, make_labels
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.resample import bootstrap_weights
from sparcom.errors import InputError
from sparcom.store import Run


def trajectory(runs: Sequence[Run], options: AnalysisOptions | None = None) -> pa.Table:
    """Checkpoints in order: one row per checkpoint, family and category ("all" last).

    The estimate is the mean Jaccard with the first checkpoint (`against` "first") and with the one
    before ("previous"). Raises InputError for fewer than two runs, or runs that do not compare.
    """
    if len(runs) < 2:
        raise InputError(f"trajectory: needs two runs or more, got {len(runs)}")
    options = options or AnalysisOptions()
    columns: dict[str, list] = {
        name: [] for name in ("step", "run", "against", "family", "category")
    }
    figures: list[Estimate] = []
    for step in range(1, len(runs)):
        for against, other in (("first", runs[0]), ("previous", runs[step - 1])):
            common = check_comparable(other, runs[step])
            labels = make_labels(common.table, options)
            for family in indices(runs[0]):
                values = paired_jaccard(*paired_bits(other, runs[step], common, family))
                for name, figure in _by_category(values, labels, options):
                    row = (step, name_of(runs[step]), against, family, name)
                    for key, value in zip(columns, row, strict=True):
                        columns[key].append(value)
                    figures.append(figure)
    return estimate_table(columns, figures)


def _by_category(
    values: np.ndarray, labels: Labels, options: AnalysisOptions
) -> list[tuple[str, Estimate]]:
    rng = np.random.default_rng(options.seed)
    weights = bootstrap_weights(labels.codes, np.arange(len(values)), options.bootstraps, rng)
    groups = [labels.codes == code for code in range(len(labels.categories))]
    groups.append(np.ones(len(values), bool))
    return [
        (
            name,
            estimate(
                float(values[group].mean()),
                weights[:, group] @ values[group] / weights[:, group].sum(1),
            ),
        )
        for name, group in zip((*labels.categories, "all"), groups, strict=True)
    ]
