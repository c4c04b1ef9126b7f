"""Passes: every prompt once, and no bound is broken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparcom.engines.packing import Pass, plan_passes

LENGTHS = st.lists(st.integers(1, 200), max_size=60)


@given(LENGTHS, st.integers(1, 64), st.integers(1, 8), st.none() | st.integers(1, 80))
def test_passes_hold_every_prompt_once_within_the_bounds(lengths, rows, slots, solo) -> None:
    passes = plan_passes(lengths, rows, slots, solo)
    assert sorted(i for one in passes for i in one.prompts) == list(range(len(lengths)))
    for one in passes:
        used = sum(lengths[i] for i in one.prompts)
        assert 0 < used <= one.rows
        assert len(one.prompts) <= slots
        # One shape for all; more only for a prompt that does not fit, and then just enough.
        assert one.rows == rows or (
            len(one.prompts) == 1
            and used > rows
            and one.rows % rows == 0
            and one.rows - used < rows
        )


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(30, 64), st.integers(1, 30))
def test_a_prompt_over_the_solo_length_has_no_neighbour(lengths, rows, solo) -> None:
    for one in plan_passes(lengths, rows, 8, solo):
        if any(lengths[i] > solo for i in one.prompts):
            assert len(one.prompts) == 1


@given(st.lists(st.integers(1, 32), min_size=1, max_size=60), st.integers(32, 64))
def test_at_most_one_pass_is_half_empty(lengths, rows) -> None:
    """First fit: two passes that would fit into one are never left apart."""
    used = [sum(lengths[i] for i in one.prompts) for one in plan_passes(lengths, rows, 1000)]
    assert sum(2 * u <= rows for u in used) <= 1


@given(LENGTHS, st.randoms())
def test_the_plan_depends_on_lengths_alone(lengths, random) -> None:
    """Whatever the order of the prompts, passes of the same lengths are made."""
    shuffled = random.sample(lengths, len(lengths))

    def shapes(of: list[int]) -> list:
        return [([of[i] for i in one.prompts], one.rows) for one in plan_passes(of, 64, 8)]

    assert shapes(lengths) == shapes(shuffled)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([], []),
        ([10], [Pass((0,), 10)]),
        ([11], [Pass((0,), 20)]),
        ([20], [Pass((0,), 20)]),
        ([4, 6, 7, 3], [Pass((2, 3), 10), Pass((1, 0), 10)]),
    ],
)
def test_small_plans_by_hand(lengths, expected) -> None:
    assert plan_passes(lengths, 10, 8) == expected
