"""Engines and groups of shards that start again, without vLLM or Ray: how often, and for whom."""

import itertools
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import ray

from sparcom.components import LocalSite, Site, shards_of
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.engines.base import EngineInfo, PromptError
from sparcom.engines.count_part import count_part
from sparcom.engines.vllm import engine as engine_module
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.engines.vllm.process.stream import Finished
from sparcom.engines.vllm.shards import actor as actor_module
from sparcom.engines.vllm.shards import group as group_module
from sparcom.engines.vllm.shards.actor import ShardActor
from sparcom.engines.vllm.shards.group import ShardGroup
from sparcom.errors import InputError, SparcomError

SHARDS = shards_of([[LocalSite(Site("dense", 0, 4, "silu"), (0, 4))]])


def prompts(n: int) -> list[Prompt]:
    return [Prompt(f"p{k}", (1, 2), ((0, 2),)) for k in range(n)]


def counted(name: str) -> Counted:
    return Counted((name,), np.array([2]), np.zeros((1, 4), np.int32), np.zeros((1, 0), np.int32))


class FakeRunning:
    """Reads a batch at once: it dies of it, or delivers it one by one.

    bad: instructions that kill it. without_h: sites whose h it does not see.
    """

    info = EngineInfo(name="vllm", dtype="float32", device="cpu", threads=1, batch_tokens=64)
    vocabulary = 96
    shards, space = SHARDS, SHARDS[0].space

    def __init__(self, bad: Sequence[str], without_h: Sequence[str]) -> None:
        self.bad = set(bad)
        self.client = SimpleNamespace(without_h=list(without_h), count_bytes=0)
        self.error: SparcomError | None = None
        self.calls: list[tuple] = []

    def results(
        self, batch: Sequence[Prompt], scored: bool = False, written: bool = False
    ) -> Iterator[Finished]:
        ids = [prompt.id for prompt in batch]
        if wrong := self.bad.intersection(ids):
            self.error = PromptError(ids, f"cannot read {min(wrong)}")
            raise self.error
        for name in ids:
            yield Finished((name,), (counted(name),))

    def call_workers(self, method: str, *args) -> list:
        self.calls.append((method, *args))
        return []

    def close(self) -> None:
        pass


@pytest.fixture
def load(monkeypatch):
    """(engine, its lives so far)"""

    def load(bad: Sequence[str] = (), without_h: Sequence[str] = (), **options):
        lives: list[FakeRunning] = []

        def start(*_) -> FakeRunning:
            lives.append(FakeRunning(bad, without_h))
            return lives[-1]

        monkeypatch.setattr(
            engine_module, "check_launch", lambda options: SimpleNamespace(context=128)
        )
        monkeypatch.setattr(engine_module, "RunningEngine", start)
        return VllmEngine(VllmOptions("m", **options)), lives

    return load


def test_several_bad_instructions_of_a_part_are_set_aside_and_no_other(load):
    """Each is found by halving; what is delivered between gives the engine its restarts back."""
    engine, lives = load(["p3", "p17", "p30"], restarts=8)
    done, failures = count_part(engine, prompts(32))
    assert sorted(failure.id for failure in failures) == ["p17", "p3", "p30"]
    assert len(done.ids) == 29
    assert len(lives) > 1 + 8


def test_an_engine_that_may_not_start_again_blames_no_instruction(load):
    """All are bad: none is delivered, and the engine must not name those of an earlier failure."""
    engine, lives = load([p.id for p in prompts(16)], restarts=3)
    with pytest.raises(
        SparcomError, match=r"as often as allowed \(3 times\) .*: forward"
    ) as caught:
        count_part(engine, prompts(16))
    assert not isinstance(caught.value, PromptError)
    assert len(lives) == 1 + 3


def test_a_closed_engine_counts_no_more(load):
    engine, _ = load(ablation=True)
    engine.close()
    with pytest.raises(SparcomError, match="closed"):
        list(engine.count(prompts(1)))
    with pytest.raises(SparcomError, match="closed"):
        engine.ablate(np.array([1]))


def test_means_are_refused_where_the_activation_does_not_give_h(load):
    engine, _ = load(without_h=["layer0.dense"], ablation=True)
    with pytest.raises(InputError, match=r"values: layer0.dense multiplies .*; ablate by zero"):
        engine.ablate(np.array([1]), np.array([0.5]))
    with pytest.raises(InputError, match=r"summing: layer0.dense multiplies"), engine.summing():
        pass


def test_an_engine_that_starts_again_keeps_what_is_ablated(load):
    engine, lives = load(["p1"], ablation=True)
    engine.ablate(np.array([1, 3]))
    with pytest.raises(PromptError):
        list(engine.count(prompts(2)))
    engine.ablate(np.array([2]))  # of a dead engine: the next one is told when it starts
    assert len(lives) == 1
    list(engine.count(prompts(1)))
    sent = [[np.frombuffer(call[2], np.int64).tolist() for call in life.calls] for life in lives]
    assert sent == [[[1, 3]], [[2]]]


# -- groups of shards -----------------------------------------------------------------------------


class FakeRanks:
    """Two ranks that finish one instruction after the other."""

    info, context, count_bytes = FakeRunning.info, 128, 0
    shards, space = SHARDS, SHARDS[0].space
    born_dead = False

    def __init__(self, *_) -> None:
        self.error: SparcomError | None = None
        self.dead = self.born_dead
        self.jobs: dict[int, list[str]] = {}
        self.numbers = itertools.count()

    def submit(self, batch: Sequence[Prompt]) -> int:
        number = next(self.numbers)
        self.jobs[number] = [p.id for p in batch]
        return number

    def next(self, job: int, function) -> tuple[tuple[str, ...], list[Counted]] | None:
        if self.dead:
            raise ray.exceptions.RayError("the actor died")
        if not self.jobs[job]:
            return None
        name = self.jobs[job].pop(0)
        return (name,), [counted(name), counted(name)]

    def forget(self, job: int) -> None:
        del self.jobs[job]

    def fail(self, error: SparcomError) -> None:
        self.error = error

    def close(self) -> None:
        pass


@pytest.fixture
def lives(monkeypatch) -> list[FakeRanks]:
    """All ranks that a group has started, in order."""
    made: list[FakeRanks] = []

    def start(*args) -> FakeRanks:
        made.append(FakeRanks(*args))
        return made[-1]

    monkeypatch.setattr(group_module, "Ranks", start)
    return made


@pytest.fixture
def group(lives) -> ShardGroup:
    return ShardGroup(VllmOptions("m", tensor_parallel=2, restarts=1))


def test_a_job_of_a_group_that_broke_leaves_the_new_group_alone(group, lives):
    jobs = [group.map(prompts(3), None) for _ in range(2)]
    for job in jobs:
        next(job)
    lives[0].dead = True
    with pytest.raises(PromptError, match="the actor died"):
        next(jobs[0])
    assert len(list(group.map(prompts(2), None))) == 2
    with pytest.raises(PromptError, match="the actor died"):
        next(jobs[1])
    assert len(list(group.map(prompts(2), None))) == 2
    assert [life.error is None for life in lives] == [False, True]


def test_a_group_that_delivers_may_break_as_often_again(group, lives, monkeypatch):
    for _ in range(3):
        job = group.map(prompts(3), None)
        next(job)
        lives[-1].dead = True
        with pytest.raises(PromptError) as caught:
            next(job)
        assert caught.value.ids == ("p1", "p2")
    assert len(lives) == 3
    monkeypatch.setattr(FakeRanks, "born_dead", True)
    with pytest.raises(PromptError):
        next(group.map(prompts(1), None))
    with pytest.raises(SparcomError, match=r"this shard group .* allowed \(1 times\) .*: forward"):
        next(group.map(prompts(1), None))
    assert len(lives) == 4


@pytest.mark.parametrize("left_early", [True, False])
def test_ranks_forget_a_job_that_ends(group, lives, left_early):
    job = group.map(prompts(2), None)
    next(job)
    assert len(lives[0].jobs) == 1
    if left_early:
        job.close()
    else:
        list(job)
    assert not lives[0].jobs


def test_an_actor_keeps_no_iterator_of_a_forgotten_job(load, monkeypatch):
    engine, _ = load()
    monkeypatch.setattr(actor_module, "VllmEngine", lambda options: engine)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # what start sets is undone
    actor = ShardActor()
    loaded = actor.start(engine.options, 0, 0, ("here", 1))
    assert (loaded.shard, loaded.context) == (SHARDS[0], engine.context)
    actor.submit(7, prompts(2))
    assert actor.next(7, None)[0] == ("p0",)
    actor.forget(7)
    actor.forget(7)  # it may be told twice
    with pytest.raises(KeyError):
        actor.next(7, None)
