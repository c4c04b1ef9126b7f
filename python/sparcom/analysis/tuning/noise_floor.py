"""The noise floor: how far a model is from itself in another dtype or engine.

A change between two models counts only beyond it (`compare`'s `noise_floor`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparcom.analysis.data.comparable import (
    Common,
    check_comparable,
    indices,
    name_of,
    paired_bits,
    weights_of,
)
from sparcom.analysis.tuning.alteration import paired_jaccard
from sparcom.analysis.tuning.component_changes import Pair
from sparcom.errors import InputError
from sparcom.store import Run


@dataclass(frozen=True, kw_only=True)
class NoiseFloor:
    """Two runs of one model, instruction by instruction.

    run, other: the two; first, second: their names; warnings: what a reader must know.
    common: the instructions that they share; ids: their names; jaccard: family -> [n] of their two
        sets.
    """

    run: Run
    other: Run
    common: Common
    first: str
    second: str
    ids: tuple[str, ...]
    jaccard: dict[str, np.ndarray]
    warnings: tuple[str, ...]

    @property
    def summary(self) -> dict[str, tuple[float, float, float]]:
        """family -> (mean, median, worst) Jaccard."""
        return {
            name: (float(v.mean()), float(np.median(v)), float(v.min()))
            for name, v in self.jaccard.items()
        }

    def check(self, *runs: Run) -> list[str]:
        """Warnings about this noise floor in a comparison of runs of one architecture.

        Raises InputError if it was measured with other settings, rules or token ids.
        """
        try:
            check_comparable(runs[0], self.run)
        except InputError as error:
            text = str(error).removeprefix("compare: ")
            raise InputError(f"noise floor: {text}") from error
        out = list(self.warnings)
        if (mine := weights_of(self.run)) and mine not in {weights_of(run) for run in runs}:
            out.append(
                f"the noise floor ({self.first}, {self.second}) is of none of the compared models"
            )
        return out

    def sets(self, family: str, ids: Sequence[str]) -> Pair:
        """The packed sets of the named instructions in the two runs.

        Raises InputError if one was not measured.
        """
        rows = self._rows(ids)
        first, second = paired_bits(self.run, self.other, self.common, family)
        return first[rows], second[rows]

    def counted(self, ids: Sequence[str]) -> np.ndarray:
        """[n] bool: of which of the named instructions tokens were counted in both runs.

        Raises InputError if one was not measured.
        """
        first = self.run.sets.tokens[self.common.first]
        second = self.other.sets.tokens[self.common.second]
        return ((first > 0) & (second > 0))[self._rows(ids)]

    def _rows(self, ids: Sequence[str]) -> list[int]:
        row_of = {name: row for row, name in enumerate(self.ids)}
        missing = [name for name in ids if name not in row_of]
        if missing:
            raise InputError(
                f"compare: the noise floor ({self.first}, {self.second}) lacks {len(missing)} "
                f"of {len(ids)} instructions, among them {missing[0]}; measure it on the same "
                "corpus"
            )
        return [row_of[name] for name in ids]


def noise_floor(first: Run, second: Run) -> NoiseFloor:
    """Overlap of two runs of one model that differ in dtype or engine only.

    Raises InputError if the runs cannot be compared, are one run, or have different weights.
    """
    if first.store.location == second.store.location:
        raise InputError(
            f"noise floor: {name_of(first)} twice; expected runs in two dtypes or engines"
        )
    common = check_comparable(first, second)
    weights = [weights_of(first), weights_of(second)]
    if None not in weights and weights[0] != weights[1]:
        raise InputError(
            f"noise floor: {name_of(first)} and {name_of(second)} have different weights; "
            "expected one model in two dtypes or engines"
        )
    values = {}
    for family in indices(first):
        values[family] = paired_jaccard(*paired_bits(first, second, common, family))
    ids = tuple(common.table["id"].to_pylist())
    warnings = list(common.warnings)
    engines = [run.manifest.get("engine", {}) for run in (first, second)]
    how = [tuple(e.get(key) for key in ("name", "device", "dtype")) for e in engines]
    if how[0] == how[1] and None not in how[0]:
        warnings.append(
            f"the noise floor ({name_of(first)}, {name_of(second)}) is of two runs by "
            f"{' on '.join(how[0][:2])} in {how[0][2]}: they round alike, so that it is too low"
        )
    return NoiseFloor(
        run=first,
        other=second,
        common=common,
        first=name_of(first),
        second=name_of(second),
        ids=ids,
        jaccard=values,
        warnings=tuple(warnings),
    )
