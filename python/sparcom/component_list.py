"""Lists of components as tables and files: columns layer, kind, expert, unit.

A neuron has a unit; a row without one names a whole routed expert. `expert` is the expert's number
within its layer, empty outside routed sites. Files are Parquet or CSV, told by their ending.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from sparcom.components import ComponentSpace
from sparcom.errors import InputError

COMPONENT_SCHEMA = pa.schema(
    [
        pa.field("layer", pa.int32(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("expert", pa.int32()),
        pa.field("unit", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Components:
    """Flat indices of a set of components, each sorted, each once."""

    neurons: np.ndarray
    experts: np.ndarray


def component_table(space: ComponentSpace, family: str, index: np.ndarray) -> pa.Table:
    """`COMPONENT_SCHEMA` rows of flat indices of a family ("experts": the expert index)."""
    offsets = space.expert_offsets if family == "experts" else space.neuron_offsets
    index = np.asarray(index, dtype=np.int64)
    at = np.searchsorted(offsets, index, side="right") - 1
    sites = space.sites
    layer = np.array([s.layer for s in sites], np.int32)
    width = np.array([1 if family == "experts" else s.width for s in sites], np.int64)
    kinds = pa.array([s.kind for s in sites], pa.string())
    routed = np.array([s.experts > 0 for s in sites], bool)
    expert, unit = np.divmod(index - offsets[at], width[at])
    no_unit = np.full(len(index), family == "experts")
    return pa.table(
        {
            "layer": pa.array(layer[at], pa.int32()),
            "kind": kinds.take(pa.array(at)),
            "expert": pa.array(expert, pa.int32(), mask=~routed[at]),
            "unit": pa.array(unit, pa.int32(), mask=no_unit),
        },
        schema=COMPONENT_SCHEMA,
    )


def component_indices(table: pa.Table, space: ComponentSpace) -> Components:
    """The flat indices that a table names.

    Raises InputError for a missing column, or a row that the model does not have.
    """
    missing = [f.name for f in COMPONENT_SCHEMA if f.name not in table.column_names]
    if missing:
        raise InputError(
            f"component list: column {missing[0]!r} is missing; expected layer, kind, expert, unit"
        )
    neurons, experts = [], []
    for number, row in enumerate(table.select(COMPONENT_SCHEMA.names).to_pylist()):
        try:
            where = -1 if row["expert"] is None else int(row["expert"])
            if row["unit"] is None:
                experts.append(_expert_index(space, int(row["layer"]), where))
            else:
                site = (int(row["layer"]), row["kind"])
                neurons.append(space.neuron_index(*site, where, int(row["unit"])))
        except (InputError, TypeError, ValueError) as error:
            raise InputError(f"component list: row {number}: {error}") from error
    return Components(
        np.unique(np.array(neurons, np.int64)), np.unique(np.array(experts, np.int64))
    )


def _expert_index(space: ComponentSpace, layer: int, expert: int) -> int:
    for site, start in zip(space.sites, space.expert_offsets, strict=False):
        if site.layer == layer and site.experts and 0 <= expert < site.experts:
            return int(start) + expert
    raise InputError(f"no routed expert {expert} in layer {layer}; a neuron needs a unit")


def write_components(path: str | Path, table: pa.Table) -> None:
    """Write a component list as Parquet or CSV; raises InputError for another ending."""
    if ending_of(path) == ".csv":
        pcsv.write_csv(table, path)
    else:
        pq.write_table(table, path)


def read_components(path: str | Path, space: ComponentSpace) -> Components:
    """Read a list; raises InputError where it is unreadable or names what the model lacks."""
    ending = ending_of(path)
    try:
        table = pcsv.read_csv(path) if ending == ".csv" else pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"component list {path}: cannot be read: {error}") from error
    return component_indices(table, space)


def ending_of(path: str | Path, what: str = "component list") -> str:
    """The ending of a table's file; raises InputError unless it is .csv or .parquet."""
    ending = Path(path).suffix.lower()
    if ending not in (".csv", ".parquet"):
        raise InputError(f"{what} {path}: expected a .csv or .parquet file")
    return ending
