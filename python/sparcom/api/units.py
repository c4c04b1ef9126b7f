"""What `Model.ablated` takes: a list of components in any of its forms, as flat indices."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from sparcom.component_list import Components, component_indices, read_components
from sparcom.components import ComponentSpace
from sparcom.errors import InputError
from sparcom.tracing.units import parse_units

Units: TypeAlias = Any
"""Flat neuron indices, words as LAYER:UNIT, a list's file, or a table with its columns."""


def to_components(units: Units, space: ComponentSpace) -> Components:
    """The components that units name.

    units: [n] flat neuron indices; words as of `trace` ("22:616"); or a path, an Arrow table
        or a DataFrame with the columns layer, kind, expert, unit, in which a row without a unit is
        a whole expert.
    Raises InputError for anything else, for what the model does not have, and if there are none.
    """
    if isinstance(units, Components):
        found = units
    elif isinstance(units, str | Path):
        found = read_components(units, space)
    elif isinstance(units, pa.Table):
        found = component_indices(units, space)
    elif hasattr(units, "to_dict") and hasattr(units, "columns"):
        found = component_indices(pa.Table.from_pandas(units, preserve_index=False), space)
    elif isinstance(units, Sequence) and units and all(isinstance(u, str) for u in units):
        found = Components(np.sort(parse_units(units, space)), np.zeros(0, np.int64))
    elif isinstance(units, np.ndarray | Sequence):
        found = Components(_flat(np.asarray(units), space), np.zeros(0, np.int64))
    else:
        raise InputError(f"units: expected {_EXPECTED}; got {type(units).__name__}")
    if not len(found.neurons) + len(found.experts):
        raise InputError("units: there are none")
    return found


_EXPECTED = (
    "flat neuron indices, words as LAYER:UNIT, a .csv or .parquet file, or a table with layer, "
    "kind, expert, unit"
)


def _flat(index: np.ndarray, space: ComponentSpace) -> np.ndarray:
    """Sorted flat neuron indices, each once."""
    if index.ndim != 1 or (index.size and not np.issubdtype(index.dtype, np.integer)):
        raise InputError(f"units: expected {_EXPECTED}; got {index.dtype} {list(index.shape)}")
    if index.size and not 0 <= index.min() <= index.max() < space.neurons:
        raise InputError(f"units: flat neuron indices must be in [0, {space.neurons})")
    found: np.ndarray = np.unique(index.astype(np.int64))
    return found
