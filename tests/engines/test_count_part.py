"""One part: every instruction counted once or set aside, whatever the engine does."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparcom.components import ComponentSpace, Site
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.engines.base import PromptError
from sparcom.engines.count_part import Failure, count_part
from sparcom.errors import CountError

SPACE = ComponentSpace((Site("dense", 0, 4, "silu"),))


class FakeEngine:
    """Counts prompts in passes of four; a pass fails where it holds one of `bad`.

    heals: prompts that fail the first time only.
    """

    space = SPACE

    def __init__(self, bad: Sequence[str] = (), heals: Sequence[str] = ()) -> None:
        self.bad, self.heals = set(bad), set(heals)
        self.passes: list[list[str]] = []

    def count(self, prompts: Sequence[Prompt]) -> Iterator[Counted]:
        for start in range(0, len(prompts), 4):
            held = [p.id for p in prompts[start : start + 4]][::-1]  # in an order of its own
            self.passes.append(held)
            wrong = sorted((self.bad | self.heals) & set(held))
            self.heals -= set(held)
            if wrong:
                raise PromptError(held, f"cannot read {wrong[0]}")
            yield counts_of(held)


def counts_of(ids: Sequence[str]) -> Counted:
    """Counts that tell the instruction: its number, four times; as signs the next two."""
    numbers = np.array([[int(name[1:])] * 4 for name in ids], np.int32).reshape(-1, 4)
    none, signs = np.zeros((len(ids), 0), np.int32), np.stack([numbers + 1, numbers + 2])
    return Counted(tuple(ids), np.full(len(ids), 99), numbers, none, signs)


def prompts_of(n: int) -> list[Prompt]:
    return [Prompt(f"p{k}", (1, 2), ((0, 2),)) for k in range(n)]


@given(st.integers(1, 20), st.data())
def test_the_bad_are_set_aside_and_the_others_counted_once(n: int, data) -> None:
    names = [f"p{k}" for k in range(n)]
    bad = data.draw(st.sets(st.sampled_from(names), max_size=n - 1))
    heals = data.draw(st.sets(st.sampled_from(names)))
    counted, failures = count_part(FakeEngine(bad, heals), prompts_of(n))
    kept = [name for name in names if name not in bad]
    assert counted.ids == tuple(kept)  # in the part's own order
    numbers = [int(name[1:]) for name in kept]
    assert counted.neurons[:, 0].tolist() == numbers
    assert counted.signs is not None
    assert counted.signs[:, :, 3].tolist() == [[n + 1 for n in numbers], [n + 2 for n in numbers]]
    assert sorted(failures, key=lambda f: names.index(f.id)) == [
        Failure(name, f"cannot read {name}") for name in names if name in bad
    ]


def test_one_bad_instruction_is_found_by_bisection_and_tried_once_more_alone() -> None:
    engine = FakeEngine(["p5"])
    counted, failures = count_part(engine, prompts_of(8))
    assert [f.id for f in failures] == ["p5"]
    assert engine.passes.count(["p5"]) == 2
    assert engine.passes.count(["p3", "p2", "p1", "p0"]) == 1  # what was done is not done again
    assert len(counted.ids) == 7


def test_a_failure_that_passes_is_no_failure() -> None:
    counted, failures = count_part(FakeEngine(heals=["p2"]), prompts_of(4))
    assert counted.ids == ("p0", "p1", "p2", "p3")
    assert failures == []


def test_all_failing_leaves_no_counts() -> None:
    counted, failures = count_part(FakeEngine(["p0", "p1", "p2"]), prompts_of(3))
    assert counted.ids == ()
    assert counted.neurons.shape == (0, SPACE.neurons)
    assert sorted(f.id for f in failures) == ["p0", "p1", "p2"]


class Broken(FakeEngine):
    """An engine whose bookkeeping is wrong in one way."""

    def __init__(self, returned: list[list[str]], error: Exception | None = None) -> None:
        super().__init__()
        self.returned, self.error = returned, error

    def count(self, prompts: Sequence[Prompt]) -> Iterator[Counted]:
        for ids in self.returned:
            yield counts_of(ids)
        if self.error:
            raise self.error


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([["p0", "p1"], ["p1", "p2"]], "returned p1 twice"),
        ([["p0", "p0", "p1", "p2"]], "twice"),
        ([["p0"], ["p2"]], "ended without counting 1 of 3 instructions, the first: p1"),
        ([], "ended without counting 3 of 3 instructions"),
        ([["p0", "p1", "p2", "p7"]], "returned p7 .* was not given it"),
    ],
)
def test_an_engine_that_loses_or_repeats_an_instruction_stops_the_run(returned, message) -> None:
    with pytest.raises(CountError, match=message):
        count_part(Broken(returned), prompts_of(3))


@pytest.mark.parametrize("error", [CountError("conservation: 3 is not 4"), RuntimeError("a bug")])
def test_an_error_of_ours_is_not_bisected(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        count_part(Broken([["p0"]], error), prompts_of(2))


def test_an_engine_that_blames_nobody_of_the_group_ends_the_run() -> None:
    with pytest.raises(PromptError, match="p9"):
        count_part(Broken([], PromptError(["p9"], "why")), prompts_of(2))
