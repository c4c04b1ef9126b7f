"""Rows to slots: every token position counts once, however the engine cuts and repeats it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparcom.engines.vllm.worker.rows import END, RowMap, first_counted, request_note
from sparcom.errors import CountError


def step(rows: RowMap, *parts: tuple[str, dict, int, int], size: int = 16) -> list[int]:
    """Slots of one step of (request, note, first position, rows) parts, in a buffer of `size`."""
    slots = np.full(size, 99, np.int32)
    rows.fill(
        slots,
        [r for r, *_ in parts],
        [note for _, note, *_ in parts],
        [first for *_, first, _ in parts],
        [n for *_, n in parts],
    )
    return slots.tolist()


def test_rows_follow_the_batch_order_and_the_rest_is_not_counted():
    rows = RowMap()
    a, b = request_note(5, [(0, 2)], 2, False), request_note(3, [(1, 3)], 4, False)
    assert step(rows, ("a", a, 0, 2), ("b", b, 0, 4), size=9) == [5, 5, -1, 3, 3, -1, -1, -1, -1]


def test_a_range_is_counted_across_chunks():
    rows, note = RowMap(), request_note(0, [(2, 7)], 9, False)
    assert step(rows, ("a", note, 0, 4), size=4) == [-1, -1, 0, 0]
    assert step(rows, ("a", note, 4, 4), size=4) == [0, 0, 0, -1]
    assert step(rows, ("a", note, 8, 1), size=1) == [-1]


def test_recomputed_positions_are_not_counted_again():
    rows, note = RowMap(), request_note(1, [(0, 4)], 4, True)
    assert step(rows, ("a", note, 0, 4), size=4) == [1, 1, 1, 1]
    assert step(rows, ("a", note, 4, 1), size=1) == [1]
    assert step(rows, ("a", note, 0, 3), size=3) == [-1, -1, -1]  # preempted, then read again
    assert step(rows, ("a", note, 3, 4), size=4) == [-1, -1, 1, 1]
    assert rows.recomputed == 5


def test_generated_tokens_count_only_where_asked():
    silent, spoken = request_note(0, [(0, 2)], 2, False), request_note(1, [], 2, True)
    rows = RowMap()
    assert step(rows, ("a", silent, 0, 2), ("b", spoken, 0, 2), size=4) == [0, 0, -1, -1]
    assert step(rows, ("a", silent, 2, 1), ("b", spoken, 2, 1), size=2) == [-1, 1]


def test_the_rows_that_read_an_answer_are_told_where_it_counts():
    silent, spoken = request_note(0, [(0, 2)], 2, False), request_note(1, [(0, 3)], 3, True)
    rows = RowMap()
    step(rows, ("a", silent, 0, 2), ("b", spoken, 0, 2))
    assert rows.answers == []
    step(rows, ("a", silent, 2, 1), ("b", spoken, 2, 3))  # a prompt's last token, two of an answer
    assert rows.answers == [(2, 4)]
    step(rows, ("b", spoken, 5, 1), ("a", silent, 3, 1))
    assert rows.answers == [(0, 1)]


def test_a_slot_serves_one_request_at_a_time():
    rows = RowMap()
    step(rows, ("a", request_note(0, [(0, 1)], 1, False), 0, 1))
    with pytest.raises(CountError, match="given slot 0, which a still has"):
        step(rows, ("b", request_note(0, [(0, 1)], 1, False), 0, 1))
    rows.close([0])
    assert step(rows, ("b", request_note(0, [(0, 1)], 1, False), 0, 1), size=1) == [0]


def test_requests_of_nobody_count_nothing():
    """vLLM's warm-up asks for rows without a note of ours."""
    rows = RowMap()
    with rows.ignoring():
        assert step(rows, ("warm-up", {}, 0, 4), size=5) == [-1] * 5
    with pytest.raises(CountError, match="request warm-up came without a slot"):
        step(rows, ("warm-up", {}, 0, 4))


def test_what_a_request_does_not_bring_was_cached():
    rows, note = RowMap(), request_note(0, [(4, 6)], 6, False)
    assert step(rows, ("a", note, 3, 2), size=2) == [-1, 0]
    assert step(rows, ("a", note, 5, 1), size=1) == [0]
    assert (rows.cached, rows.recomputed) == (3, 0)


@pytest.mark.parametrize(
    ("counted", "response", "first"),
    [([(3, 5), (7, 9)], False, 3), ([(0, 9)], True, 0), ([], True, 9), ([], False, END)],
)
def test_the_first_counted_position(counted, response, first):
    assert first_counted(request_note(0, counted, 9, response)) == first


def test_a_request_without_a_slot_is_an_error():
    with pytest.raises(CountError, match="request a came without a slot"):
        step(RowMap(), ("a", {}, 0, 1))


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_cutting_and_preempting_counts_each_position_once(data):
    length = data.draw(st.integers(1, 30))
    start = data.draw(st.integers(0, length - 1))
    counted = (start, data.draw(st.integers(start, length)))
    rows, note, total = RowMap(), request_note(0, [counted], length, False), 0
    at = 0
    while at < length:
        n = data.draw(st.integers(1, length - at))
        total += step(rows, ("a", note, at, n), size=n).count(0)
        at += n
        if at < length and data.draw(st.booleans()):
            at = 0 if data.draw(st.booleans()) else at
        if rows.recomputed > 200:
            total += step(rows, ("a", note, at, length - at), size=length - at).count(0)
            break
    assert total == counted[1] - counted[0]
