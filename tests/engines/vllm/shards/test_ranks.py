"""A group of shard actors on a Ray of its own, with actors that need no vLLM."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import ray
from ray.util import placement_group_table

from sparcom.components import ComponentSpace, LocalSite, Shard, Site
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.base import PromptError
from sparcom.engines.vllm.options import VllmOptions
from sparcom.engines.vllm.shards import ranks as ranks_module
from sparcom.engines.vllm.shards.group import ShardGroup
from sparcom.engines.vllm.shards.ranks import own_error
from sparcom.errors import InputError, SparcomError

SITE = Site("dense", 0, 4, "silu")


def wrapped(cause: Exception) -> ray.exceptions.RayTaskError:
    """What Ray raises for what an actor raised."""
    return ray.exceptions.RayTaskError("next", "Traceback ...", cause)


@pytest.mark.parametrize("ids", [(), ("p1",)])
def test_an_error_of_ours_comes_out_of_an_actor_as_it_is(ids: tuple) -> None:
    error = InputError("slots: must be at least 1")
    assert own_error(wrapped(error), ids) is error
    assert own_error(error, ids) is error


def test_other_errors_concern_the_instructions_under_way() -> None:
    told = own_error(wrapped(ZeroDivisionError("by zero\nand more")), ("p1", "p2"))
    assert isinstance(told, PromptError)
    assert (told.ids, told.reason) == (("p1", "p2"), "ZeroDivisionError: by zero")
    told = own_error(ray.exceptions.ActorDiedError(), ("p1",))
    assert isinstance(told, PromptError)
    assert told.reason.startswith("ActorDiedError: ")


def test_without_instructions_they_are_errors_of_the_group() -> None:
    told = own_error(wrapped(MemoryError("no room")))
    assert (type(told), str(told)) == (SparcomError, "shards: MemoryError: no room")
    stop = KeyboardInterrupt()
    assert own_error(stop) is stop


# -- on a Ray -------------------------------------------------------------------------------------


def actor_class() -> type:
    """A rank that counts 1, 2, 3, ... for its half of the neurons; made in a function, so that Ray
    sends it by value."""
    from sparcom.counting.counted import Counted
    from sparcom.engines.base import EngineInfo
    from sparcom.engines.vllm.shards.actor import Loaded

    class CountingRank:
        def address(self) -> tuple[str, int]:
            return "127.0.0.1", 1

        def start(self, options: VllmOptions, rank: int, local_rank: int, meet: tuple) -> Loaded:
            if options.slots == 13 and rank == 1:
                raise InputError("rank 1 cannot load this")
            self.rank, self.jobs = rank, {}
            half = LocalSite(SITE, (2 * rank, 2 * rank + 2))
            self.shard = Shard(ComponentSpace((SITE,)), (half,))
            info = EngineInfo(
                name="vllm", dtype="float32", device="cpu", threads=1, batch_tokens=64
            )
            return Loaded(info=info, context=128, shard=self.shard, count_bytes=8)

        def submit(self, job: int, prompts: Sequence[Prompt]) -> None:
            self.jobs[job] = [prompt.id for prompt in prompts]

        def next(self, job: int, function):
            if not self.jobs[job]:
                return None
            last = self.rank == 1 and "turn" in self.jobs[job]
            name = self.jobs[job].pop(-1 if last else 0)
            numbers = np.arange(1, 3, dtype=np.int32)[None] + 2 * self.rank
            counted = Counted((name,), np.array([9]), numbers, np.zeros((1, 0), np.int32))
            return (name,), counted if function is None else function(self.shard, counted)

        def forget(self, job: int) -> None:
            self.jobs.pop(job, None)

        def open_jobs(self) -> int:
            return len(self.jobs)

        def close(self) -> None:
            pass

    return CountingRank


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=100 << 20,
        _node_ip_address="127.0.0.1", log_to_driver=False,
    )  # fmt: skip
    yield
    ray.shutdown()


@pytest.fixture
def load(ray_here, monkeypatch):
    monkeypatch.setattr(ranks_module, "ShardActor", actor_class())
    groups: list[ShardGroup] = []

    def load(**options) -> ShardGroup:
        groups.append(ShardGroup(VllmOptions("m", tensor_parallel=2, restarts=1, **options)))
        return groups[-1]

    yield load
    for group in groups:
        group.close()
    assert reserved() == 0


def reserved() -> int:
    return sum(group["state"] != "REMOVED" for group in placement_group_table().values())


def prompts(*names: str) -> list[Prompt]:
    return [Prompt(name, (1, 2), ((0, 2),)) for name in names]


@pytest.mark.slow
def test_counts_of_all_ranks_are_merged_and_functions_run_beside_them(load) -> None:
    group = load()
    assert (group.space, group.context, group.count_bytes) == (ComponentSpace((SITE,)), 128, 16)
    found = list(group.count(prompts("a", "b")))
    assert [one.ids for one in found] == [("a",), ("b",)]
    assert [one.neurons.tolist() for one in found] == [[[1, 2, 3, 4]]] * 2
    beside = group.map(prompts("a"), lambda shard, counted: int(counted.neurons.sum()))
    assert list(beside) == [[3, 7]]
    assert reserved() == 1


@pytest.mark.slow
def test_ranks_that_are_out_of_step_end_the_group(load) -> None:
    group = load()
    with pytest.raises(SparcomError, match="ranks finished different instructions"):
        list(group.count(prompts("a", "b", "turn")))
    assert len(list(group.count(prompts("a")))) == 1  # another group
    assert reserved() == 1


@pytest.mark.slow
def test_a_job_that_is_left_early_is_forgotten_by_every_rank(load) -> None:
    group = load()
    results = group.map(prompts("a", "b"), None)
    next(results)
    actors = group._ranks.current._actors
    assert ray.get([actor.open_jobs.remote() for actor in actors]) == [1, 1]
    results.close()
    assert ray.get([actor.open_jobs.remote() for actor in actors]) == [0, 0]


@pytest.mark.slow
def test_a_rank_that_cannot_start_leaves_nothing_reserved(load) -> None:
    with pytest.raises(InputError, match="^rank 1 cannot load this$"):
        load(slots=13)
    assert reserved() == 0


@pytest.mark.slow
def test_a_group_that_finds_no_place_says_what_it_asked_for(load, monkeypatch) -> None:
    monkeypatch.setattr(ranks_module, "_PLACING_S", 1)
    expected = (
        r"^no place for 2 shards of 3 CPU each \(STRICT_PACK\) in 1 s; `ray status` shows what is "
        "free: give the cluster more, or use fewer shards$"
    )
    with pytest.raises(SparcomError, match=expected):
        load(threads=3)
    assert reserved() == 0
