"""The precision floor: how far a model is from itself in another dtype or engine.

A change between two models counts only beyond it (`compare`'s `floor`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparcom.analysis.alteration import paired_jaccard
from sparcom.analysis.comparable import check_comparable, indices, name_of, paired_bits
from sparcom.errors import InputError
from sparcom.store import Run


@dataclass(frozen=True)
class Floor:
    """Two runs of one model, instruction by instruction.

    ids: instructions; jaccard: family -> [n] of their two sets.
    """

    first: str
    second: str
    ids: tuple[str, ...]
    jaccard: dict[str, np.ndarray]

    @property
    def summary(self) -> dict[str, tuple[float, float, float]]:
        """family -> (mean, median, worst) Jaccard."""
        return {
            name: (float(v.mean()), float(np.median(v)), float(v.min()))
            for name, v in self.jaccard.items()
        }

    def values(self, family: str, ids: Sequence[str]) -> np.ndarray:
        """[n] Jaccard of the named instructions; raises InputError where one was not measured."""
        row_of = {name: row for row, name in enumerate(self.ids)}
        missing = [name for name in ids if name not in row_of]
        if missing:
            raise InputError(
                f"compare: the precision floor ({self.first}, {self.second}) lacks {len(missing)} "
                f"of {len(ids)} instructions, among them {missing[0]}; measure it on the same "
                "corpus"
            )
        return self.jaccard[family][[row_of[name] for name in ids]]


def precision_floor(first: Run, second: Run) -> Floor:
    """Overlap of two runs of one model that differ in dtype or engine only.

    Raises InputError where the runs cannot be compared.
    """
    common = check_comparable(first, second)
    values = {}
    for family in indices(first):
        values[family] = paired_jaccard(*paired_bits(first, second, common, family))
    ids = tuple(common.table["id"].to_pylist())
    return Floor(name_of(first), name_of(second), ids, values)
