from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from planted import mixed_space

from sparcom.component_list import (
    component_indices,
    component_table,
    read_components,
    write_components,
)
from sparcom.errors import InputError

SPACE = mixed_space()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_list_reads_back_as_it_was_written(tmp_path: Path, ending: str) -> None:
    neurons, experts = np.array([0, 36, 37, 90, 160, SPACE.neurons - 1]), np.array([1, 9])
    table = pa.concat_tables(
        [component_table(SPACE, "neurons", neurons), component_table(SPACE, "experts", experts)]
    )
    path = tmp_path / f"some.{ending}"
    write_components(path, table)
    found = read_components(path, SPACE)
    np.testing.assert_array_equal(found.neurons, neurons)
    np.testing.assert_array_equal(found.experts, experts)


def test_rows_agree_with_the_space() -> None:
    index = np.arange(SPACE.neurons)
    rows = component_table(SPACE, "neurons", index).to_pylist()
    for at in (0, 36, 37, 45, 46, 81, 82, 102, 103, SPACE.neurons - 1):
        layer, kind, expert, unit = SPACE.describe_neuron(at)
        expected = {"layer": layer, "kind": kind, "expert": None if expert < 0 else expert,
                    "unit": unit}  # fmt: skip
        assert rows[at] == expected


def test_a_list_of_dense_neurons_alone_reads_from_csv(tmp_path: Path) -> None:
    path = tmp_path / "dense.csv"
    path.write_text("layer,kind,expert,unit\n0,dense,,5\n0,dense,,5\n0,dense,,3\n")
    assert read_components(path, SPACE).neurons.tolist() == [3, 5]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0,dense,,37", r"row 0: no neuron \(layer 0, dense, expert -1, unit 37\)"),
        ("1,routed,5,", r"row 0: no routed expert 5 in layer 1; a neuron needs a unit"),
        ("0,dense,,", r"row 0: no routed expert -1 in layer 0"),
        ("x,dense,,1", r"row 0: invalid literal"),
    ],
)
def test_a_row_that_the_model_lacks_is_named(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(f"layer,kind,expert,unit\n{row}\n")
    with pytest.raises(InputError, match=message):
        read_components(path, SPACE)


def test_files_that_are_no_lists(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="column 'kind' is missing"):
        component_indices(pa.table({"layer": [1]}), SPACE)
    with pytest.raises(InputError, match=r"expected a \.csv or \.parquet file"):
        read_components(tmp_path / "x.txt", SPACE)
    with pytest.raises(InputError, match="cannot be read"):
        read_components(tmp_path / "gone.csv", SPACE)
