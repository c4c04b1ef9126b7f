"""Engines and groups of shards that start anew, without vLLM or Ray: how often, and for whom."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import ray

from sparcom.components import Site
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.engines.base import PromptError
from sparcom.engines.count_part import count_part
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.engines.vllm.process.stream import Finished
from sparcom.engines.vllm.shards import shards
from sparcom.engines.vllm.shards.held import HeldSite, assemble
from sparcom.engines.vllm.shards.shards import ShardActor, ShardGroup
from sparcom.errors import InputError, SparcomError


def prompts(n: int) -> list[Prompt]:
    return [Prompt(f"p{k}", (1, 2), ((0, 2),)) for k in range(n)]


def counted(name: str) -> Counted:
    return Counted((name,), np.array([2]), np.zeros((1, 4), np.int32), np.zeros((1, 0), np.int32))


class FakeStream:
    """Reads a batch at once: it dies of it, or delivers it one by one."""

    def __init__(self, bad: Sequence[str]) -> None:
        self.bad, self.error = set(bad), None

    def submit(self, batch: Sequence[Prompt], scored: bool = False) -> list[str]:
        return [prompt.id for prompt in batch]

    def results(self, job: list[str]) -> Iterator[Finished]:
        if wrong := self.bad.intersection(job):
            self.error = PromptError(job, f"cannot read {min(wrong)}")
            raise self.error
        for name in job:
            yield Finished((name,), (counted(name),))

    def close(self) -> None:
        pass


class FakeEngine(VllmEngine):
    """bad: instructions that kill it."""

    def __init__(self, bad: Sequence[str] = (), **options) -> None:
        self.options = VllmOptions("m", **options)
        self._facts = SimpleNamespace(context=128)
        self._vocabulary = 96
        self._lock, self._restarts = threading.Lock(), self.options.restarts
        self._folder, self._llm, self._processes = "no such folder", None, []
        self._apart: list[str] = []
        self.space, self.shards = assemble([[HeldSite(Site("dense", 0, 4, "silu"), (0, 4))]])
        self.bad, self.starts = bad, 0
        self._start()

    def _start(self) -> None:
        self.starts += 1
        self._stream = FakeStream(self.bad)


def test_several_bad_instructions_of_a_part_are_set_aside_and_no_other():
    """Each is found by halving; what is delivered between gives the engine its restarts back."""
    engine = FakeEngine(["p3", "p17", "p30"], restarts=8)
    done, failures = count_part(engine, prompts(32))
    assert sorted(failure.id for failure in failures) == ["p17", "p3", "p30"]
    assert len(done.ids) == 29
    assert engine.starts > 1 + 8


def test_an_engine_that_may_not_start_again_blames_no_instruction():
    """All are bad: none is delivered, and the engine must not name those of an earlier failure."""
    engine = FakeEngine([p.id for p in prompts(16)], restarts=3)
    with pytest.raises(
        SparcomError, match=r"as often as allowed \(3 times\) .*: forward"
    ) as caught:
        count_part(engine, prompts(16))
    assert not isinstance(caught.value, PromptError)
    assert engine.starts == 1 + 3


def test_closing_waits_for_a_restart_and_then_holds():
    engine = FakeEngine(["p0"])
    with pytest.raises(PromptError):
        list(engine.count(prompts(1)))
    begun, start = threading.Event(), engine._start

    def slow_start() -> None:
        begun.set()
        time.sleep(0.2)
        start()

    engine._start = slow_start
    restart = threading.Thread(target=engine._ready)
    restart.start()
    begun.wait(10)
    engine.close()
    restart.join(10)
    assert engine.starts == 2
    with pytest.raises(SparcomError, match="closed"):
        list(engine.count(prompts(1)))


def test_means_are_refused_where_the_activation_does_not_give_h():
    engine = FakeEngine(ablation=True)
    engine._apart = ["layer0.dense"]
    with pytest.raises(InputError, match=r"values: layer0.dense multiplies .*; silence by zero"):
        engine.ablate(np.array([1]), np.array([0.5]))
    with pytest.raises(InputError, match=r"summing: layer0.dense multiplies"), engine.summing():
        pass


# -- groups of shards -----------------------------------------------------------------------------


class FakeCall:
    """A method of an actor: `remote` says what to do, `shards._all` does it."""

    def __init__(self, function: Callable) -> None:
        self.function = function

    def options(self, **_) -> "FakeCall":
        return self

    def remote(self, *arguments) -> Callable:
        return lambda: self.function(*arguments)


class FakeActor:
    def __init__(self) -> None:
        self.jobs: dict[int, list[str]] = {}
        self.dead = False
        self.submit = FakeCall(lambda job, batch: self.jobs.update({job: [p.id for p in batch]}))
        self.next = FakeCall(self._next)
        self.forget = SimpleNamespace(remote=lambda job: self.jobs.pop(job))

    def _next(self, job: int, function) -> tuple[tuple[str], Counted] | None:
        if self.dead:
            raise ray.exceptions.RayError("the actor died")
        if not self.jobs[job]:
            return None
        name = self.jobs[job].pop(0)
        return (name,), counted(name)


class FakeGroup(ShardGroup):
    def _start(self) -> None:
        self._actors = [FakeActor(), FakeActor()]

    def _free(self) -> None:
        self._actors = []


@pytest.fixture
def group(monkeypatch) -> FakeGroup:
    monkeypatch.setattr(shards, "_all", lambda calls: [call() for call in calls])
    return FakeGroup(VllmOptions("m", tensor_parallel=2, restarts=1))


def test_a_job_of_a_group_that_broke_leaves_the_new_group_alone(group):
    jobs = [group.map(prompts(3), None) for _ in range(2)]
    for job in jobs:
        next(job)
    group._actors[1].dead = True
    with pytest.raises(PromptError, match="the actor died"):
        next(jobs[0])
    assert len(list(group.map(prompts(2), None))) == 2
    fresh = group._actors
    with pytest.raises(PromptError, match="the actor died"):
        next(jobs[1])
    assert group._actors is fresh


def test_a_group_that_delivers_may_break_as_often_again(group):
    for _ in range(3):
        job = group.map(prompts(3), None)
        next(job)
        group._actors[0].dead = True
        with pytest.raises(PromptError) as caught:
            next(job)
        assert caught.value.ids == ("p1", "p2")
    group._restarts = 0
    with pytest.raises(SparcomError, match=r"as often as allowed \(1 times\)"):
        next(group.map(prompts(1), None))


@pytest.mark.parametrize("left_early", [True, False])
def test_actors_forget_a_job_that_ends(group, left_early):
    job = group.map(prompts(2), None)
    next(job)
    assert [len(actor.jobs) for actor in group._actors] == [1, 1]
    if left_early:
        job.close()
    else:
        list(job)
    assert [len(actor.jobs) for actor in group._actors] == [0, 0]


def test_an_actor_keeps_no_iterator_of_a_forgotten_job():
    actor, engine = ShardActor(), FakeEngine()
    actor._engine = engine
    actor.submit(7, prompts(2))
    assert actor.next(7, None)[0] == ("p0",)
    actor.forget(7)
    actor.forget(7)  # it may be told twice
    assert not actor._jobs
