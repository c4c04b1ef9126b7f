"""Names of neurons: those of the model, and one line for any other."""

import numpy as np
import pytest

from sparcom.component_list import component_table, write_components
from sparcom.components import ComponentSpace, Site
from sparcom.errors import InputError
from sparcom.tracing.units import name_of, parse_units

SPACE = ComponentSpace(
    (
        Site("dense", 0, 10, "silu"),
        Site("routed", 1, 4, "silu", experts=3, top_k=1),
        Site("shared", 1, 5, "silu"),
    )
)


def test_words_name_neurons_in_their_order_each_once() -> None:
    words = ["0:7", "1:2:3", "1:4", "1:shared:0", "0:dense:7"]
    assert parse_units(words, SPACE).tolist() == [7, 10 + 2 * 4 + 3, 22 + 4, 22]


def test_every_name_is_read_back() -> None:
    index = np.arange(SPACE.neurons)
    words = [name_of(SPACE, int(i)) for i in index]
    np.testing.assert_array_equal(parse_units(words, SPACE), index)
    assert [words[at] for at in (7, 21, 26)] == ["0:7", "1:2:3", "1:shared:4"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_list_names_its_neurons(tmp_path, ending: str) -> None:
    path = tmp_path / f"list.{ending}"
    write_components(path, component_table(SPACE, "neurons", np.array([3, 12])))
    assert parse_units([str(path), "0:0"], SPACE).tolist() == [3, 12, 0]


@pytest.mark.parametrize(
    "word", ["", "7", "0:10", "2:0", "1:3:0", "1:0:4", "0:-1", "0:1:2:3", "a:b"]
)
def test_another_word_is_refused_in_one_line(word: str) -> None:
    with pytest.raises(InputError, match="trace: unit") as error:
        parse_units([word], SPACE)
    assert "\n" not in str(error.value)


def test_a_list_of_experts_and_no_word_are_refused(tmp_path) -> None:
    path = tmp_path / "experts.csv"
    write_components(path, component_table(SPACE, "experts", np.array([1])))
    with pytest.raises(InputError, match="lists whole experts"):
        parse_units([str(path)], SPACE)
    with pytest.raises(InputError, match="no unit is named"):
        parse_units([], SPACE)
