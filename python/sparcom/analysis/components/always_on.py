"""Components that fire on nearly every token, whatever it says."""

import numpy as np

from sparcom.analysis.data.labels import encode
from sparcom.analysis.options import AnalysisOptions
from sparcom.errors import InputError
from sparcom.store import Run

_COLUMNS = {"neurons": "neuron_counts", "experts": "expert_counts"}


def category_frequencies(run: Run, categories: tuple[str, ...], family: str) -> np.ndarray:
    """[C, components] float64: summed c / summed T of each category, from the stored profile.

    family: "neurons" or "experts". NaN where no token was counted.
    """
    cells, sums = run.store.profiles.read(("category",), (_COLUMNS[family],))
    counts, tokens = sums[_COLUMNS[family]], cells["tokens"].to_numpy().astype(np.float64)
    out = np.full((len(categories), counts.shape[1]), np.nan)
    for row, code in enumerate(encode(cells["category"].to_pylist(), categories)):
        if tokens[row]:
            out[code] = counts[row] / tokens[row]
    return out


def always_on(
    run: Run, frequency: np.ndarray, family: str, options: AnalysisOptions
) -> tuple[np.ndarray, str]:
    """([components] bool, which tokens say so).

    A component is always on if it fires on `options.always_on` of the tokens of plain text, where
    `options.baseline` names a run that counted some; otherwise, of every category of this run.
    frequency: [C, components] of this run. Raises InputError if the baseline is of another model.
    """
    if not options.baseline:
        return np.nan_to_num(frequency, nan=1.0).min(0) >= options.always_on, "every category"
    plain = Run(options.baseline)
    if plain.space.sites != run.space.sites:
        raise InputError(
            f"baseline: {options.baseline} is of a model of another shape than "
            f"{run.store.location}; count plain text with the same model"
        )
    cells, sums = plain.store.profiles.read(("fold",), (_COLUMNS[family],))
    share = sums[_COLUMNS[family]].sum(0) / max(int(cells["tokens"].to_numpy().sum()), 1)
    return share >= options.always_on, "plain text"
