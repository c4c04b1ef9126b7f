"""Sets of components, packed: what a selection returns and a run stores."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from sparcom.component_list import COMPONENT_SCHEMA, component_table
from sparcom.components import ComponentSpace
from sparcom.errors import InputError


@dataclass(frozen=True)
class Sets:
    """Sets of some instructions, one row each.

    ids: instruction ids.
    tokens: [n] int64, T.
    neurons: [n, ceil(neurons / 8)] uint8, bit i % 8 of byte i // 8 is neuron i; experts likewise.
    cuts: [n, groups] int32, what a count must reach to be selected (by lift: the least count of a
        member); sizes: [n, groups] int32.
    expert_cuts, expert_sizes: the same for experts.
    space: of the model: what the bits stand for.

    >>> sets.indices("MATH-ai-003")  # or a row number: flat indices of its neurons
    >>> sets.table().to_pandas()
    """

    ids: tuple[str, ...]
    tokens: np.ndarray
    neurons: np.ndarray
    cuts: np.ndarray
    sizes: np.ndarray
    experts: np.ndarray
    expert_cuts: np.ndarray
    expert_sizes: np.ndarray
    space: ComponentSpace

    def __len__(self) -> int:
        return len(self.ids)

    def indices(self, instruction: int | str) -> np.ndarray:
        """[k] int64: flat indices of the neurons in one set, ascending.

        instruction: its row or its id. Raises InputError if there is no such row or id.
        """
        return _members(self.neurons[self._row(instruction)], self.space.neurons)

    def expert_indices(self, instruction: int | str) -> np.ndarray:
        """[k] int64: flat indices of the routed experts in one set, ascending."""
        return _members(self.experts[self._row(instruction)], self.space.experts)

    def table(self) -> pa.Table:
        """Every member of every set: id, layer, kind, expert, unit.

        unit counts within the layer (of its expert); a row without a unit is a whole routed expert.
        """
        parts = []
        for row, name in enumerate(self.ids):
            for family, index in (
                ("neurons", self.indices(row)),
                ("experts", self.expert_indices(row)),
            ):
                listed = component_table(self.space, family, index)
                parts.append(listed.add_column(0, _ID, pa.array([name] * len(listed), pa.string())))
        return pa.concat_tables([_SCHEMA.empty_table(), *parts])

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.ids)}

    def _row(self, instruction: int | str) -> int:
        return row_of(instruction, self.ids, self._rows)


_ID = pa.field("id", pa.string(), nullable=False)
_SCHEMA = pa.schema([_ID, *COMPONENT_SCHEMA])


def row_of(instruction: int | str, ids: Sequence[str], rows: dict[str, int]) -> int:
    """The row that a number or an id names; raises InputError if there is none."""
    if isinstance(instruction, str):
        if instruction not in rows:
            first = f" (the first of {len(ids)} is {ids[0]!r})" if ids else ""
            raise InputError(f"no instruction has the id {instruction!r}{first}")
        return rows[instruction]
    if not 0 <= instruction < len(ids):
        raise InputError(f"row must be in [0, {len(ids)}), got {instruction}")
    return int(instruction)


def _members(bits: np.ndarray, components: int) -> np.ndarray:
    return np.flatnonzero(np.unpackbits(bits, count=components, bitorder="little"))
