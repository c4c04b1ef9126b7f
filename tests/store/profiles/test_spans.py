"""Spans: which profiles are merged when, and what a listing of files says is done."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparcom.errors import SparcomError
from sparcom.store.profiles.spans import MergeTree, Span, covered, outermost, span_of


def test_names_come_back() -> None:
    for span in (Span(0, 1), Span(7, 8), Span(0, 16), Span(123_456, 123_472)):
        assert span_of(span.name) == span
    for name in ("part-00001.parquet.ab12.tmp", "part-1.parquet", "x", "parts-00005-00002.parquet"):
        assert span_of(name) is None


@given(st.integers(1, 100), st.integers(2, 5), st.randoms())
def test_every_aligned_span_gets_ready_once_when_its_parts_are_done(parts, fan, random) -> None:
    order = list(range(parts))
    random.shuffle(order)
    tree, done, ready = MergeTree(parts, fan=fan), set(), []
    for part in order:
        done.add(part)
        for span in tree.add(part):
            assert set(range(*span)) <= done
            ready.append(span)
    expected, width = set(), fan
    while width <= parts:
        expected |= {Span(a, a + width) for a in range(0, parts - width + 1, width)}
        width *= fan
    assert sorted(ready) == sorted(expected)


@given(st.integers(1, 60), st.integers(0, 60), st.randoms())
def test_a_tree_that_is_started_again_goes_on(parts, before, random) -> None:
    order = list(range(parts))
    random.shuffle(order)
    whole, first = MergeTree(parts, fan=3), MergeTree(parts, fan=3)
    spans = [Span(p, p + 1) for p in order[:before]] + [
        s for p in order[:before] for s in first.add(p)
    ]
    for part in order[:before]:
        whole.add(part)
    again = MergeTree(parts, spans, fan=3)
    assert covered(spans) == set(order[:before])
    for part in order[before:]:
        assert again.add(part) == whole.add(part)


def test_what_a_stopped_merge_left_is_inside_the_merged_one() -> None:
    spans = [Span(0, 1), Span(1, 2), Span(0, 16), Span(16, 17)]
    assert outermost(spans) == [Span(0, 16), Span(16, 17)]
    assert covered(spans) == set(range(17))


def test_spans_that_overlap_are_refused() -> None:
    with pytest.raises(SparcomError, match=r"parts-00000-00002.parquet and parts-00002-00003"):
        outermost([Span(0, 3), Span(2, 4)])
