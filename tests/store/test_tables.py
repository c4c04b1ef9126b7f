"""Counts and sets as Arrow tables, and parts of them joined."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_helpers import DENSE, MOE, assert_equal, counted_of, signed_of

from sparcom.counting.counted import Counted
from sparcom.selection.rules import Selection, identify
from sparcom.store import concat_counted, concat_sets, counts_of, counts_table, sets_of, sets_table
from sparcom.store.tables import SIGNS


@settings(max_examples=50)
@given(
    st.sampled_from((DENSE, MOE)),
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5, unique=True),
    st.integers(0, 99),
    st.sampled_from((9, 70_000)),
)
def test_counts_and_sets_survive_their_tables(space, ids, seed, top) -> None:
    counted = counted_of(space, tuple(ids), seed, top)
    assert_equal(counts_of(counts_table(counted)), counted)
    sets = identify(counted, space, Selection("top:0.2"))
    assert_equal(sets_of(sets_table(sets), space), sets)


@pytest.mark.parametrize("space", [DENSE, MOE])
def test_signs_survive_their_table(space) -> None:
    counted = signed_of(space, tuple("abc"))
    table = counts_table(counted)
    assert table.column_names[-2:] == list(SIGNS)
    assert_equal(counts_of(table), counted)
    assert counts_of(table.drop_columns(list(SIGNS))).signs is None
    parts = [counts_of(table.slice(0, 1)), counts_of(table.slice(1))]
    assert_equal(concat_counted(parts), counted)


@pytest.mark.parametrize(("tokens", "bits"), [(65_535, 16), (65_536, 32), (1_000_000, 32)])
def test_counts_over_16_bits_take_32(tokens: int, bits: int) -> None:
    counts = np.array([[0, 1, tokens - 1, tokens]], np.int32)
    counted = Counted(("a",), np.array([tokens]), counts, np.zeros((1, 0), np.int32))
    table = counts_table(counted)
    assert table["neurons"].type.value_type.bit_width == bits
    assert counts_of(table).neurons.tolist() == counts.tolist()


def test_a_slice_of_a_table_reads_its_own_rows() -> None:
    sets = identify(counted_of(MOE, tuple("abcd")), MOE, Selection("top:0.2"))
    part = sets_of(sets_table(sets).slice(1, 2), MOE)
    assert part.ids == ("b", "c")
    np.testing.assert_array_equal(part.neurons, sets.neurons[1:3])
    np.testing.assert_array_equal(part.cuts, sets.cuts[1:3])


def test_parts_join_in_order() -> None:
    whole = counted_of(MOE, tuple("abcd"))
    rows = [
        Counted(whole.ids[s], whole.tokens[s], whole.neurons[s], whole.experts[s])
        for s in (slice(0, 1), slice(1, 4))
    ]
    assert_equal(concat_counted(rows), whole)
    select = Selection("top:0.2", ties="exact")
    joined = concat_sets([identify(part, MOE, select) for part in rows])
    assert_equal(joined, identify(whole, MOE, select))
