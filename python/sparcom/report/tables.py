"""The tables of a run's analysis, as the page reads them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparcom.analysis.stats.estimate import Estimate, estimate_of
from sparcom.errors import InputError
from sparcom.report.format import in_layers
from sparcom.store import Run

Row = dict[str, Any]


class Tables:
    """The tables in analysis/ of a run, each read once. layers: of its model."""

    def __init__(self, run: Run) -> None:
        self._run, self._names, self.layers = run, frozenset(run.tables), run.layers
        self._rows: dict[str, list[Row]] = {}

    def rows(self, name: str, **values: object) -> list[Row]:
        """The rows of a table whose columns have these values; none if it was not written.

        >>> Tables(run).rows("effects", family="neurons", figure="category effect")
        """
        if name not in self._rows:
            known = name in self._names
            self._rows[name] = self._run.table(name).to_pylist() if known else []
        return [
            row
            for row in self._rows[name]
            if all(row[column] == value for column, value in values.items())
        ]

    def row(self, name: str, **values: object) -> Row:
        """The only such row. Raises InputError if there is none, or more than one."""
        found = self.rows(name, **values)
        if len(found) != 1:
            raise InputError(
                f"{self._run.store.location}: table {name}: expected one row with {values}, got "
                f"{len(found)}; analyse the run again with sparcom report"
            )
        return found[0]

    def estimate(self, name: str, **values: object) -> Estimate:
        """The estimate in the only such row."""
        return estimate_of(self.row(name, **values))


def distinct(rows: Sequence[Row], column: str) -> list[Any]:
    """The values of a column, each once, in the order of the rows."""
    return list(dict.fromkeys(row[column] for row in rows))


def gaps(rows: Sequence[Row], layers: int) -> str:
    """What a caption adds if some of a model's layers are not in its figure's rows, else ""."""
    found = distinct(rows, "layer")
    return "" if len(found) == layers else f" Only {in_layers(found, layers)} have such components."


def array(rows: Sequence[Row], column: str) -> np.ndarray:
    """[n] float64 of a column; NaN for null."""
    return np.array([row[column] for row in rows], np.float64)


def square(rows: Sequence[Row], column: str = "value") -> np.ndarray:
    """[C, C] float64 of rows in the order of the categories a, b; NaN for null."""
    side = len(distinct(rows, "a"))
    return array(rows, column).reshape(side, side)
