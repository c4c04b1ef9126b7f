"""One life of a group of shard actors: their placement group, their jobs, and their end."""

import itertools
import threading
from collections.abc import Sequence
from typing import Any

from sparcom.components import merge_shards
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.base import PromptError
from sparcom.engines.vllm.options import VllmOptions
from sparcom.engines.vllm.process.faults import one_line
from sparcom.engines.vllm.shards import placement_groups
from sparcom.engines.vllm.shards.actor import Loaded, ShardActor, ShardFunction
from sparcom.errors import SparcomError

_PATIENCE = 20  # seconds
_PLACING_S = 1800  # a cluster that grows on demand starts its machines in this time


class Ranks:
    """The actors of one group, in rank order; `Restartable` starts the next group.

    options: of the engines in the actors. gpus, strategy: as in `ShardGroup`.
    error: why the group died; None as long as it runs.
    info, context, count_bytes: as of an engine. shards, space: what each rank counts, and all.
    Raises what the engine in an actor raises; no actor and no reservation is left behind then.
    """

    def __init__(self, options: VllmOptions, gpus: float, strategy: str) -> None:
        self.error: BaseException | None = None
        self._lock, self._jobs = threading.Lock(), itertools.count()
        self._actors: list[Any] = []
        self._freed = False
        cpus = options.threads or 1
        bundle = {"CPU": cpus, **({"GPU": gpus} if gpus else {})}
        bundles = [bundle] * options.world_size
        self._group = placement_groups.reserve(bundles, strategy)
        try:
            self._wait_for_place(bundles, strategy)
            self._actors = [
                self._make_actor(rank, cpus, gpus) for rank in range(options.world_size)
            ]
            loaded = self._load(options, gpus)
        except BaseException as error:
            self._free()
            raise own_error(error) from None
        self.info, self.context = loaded[0].info, loaded[0].context
        self.shards = [one.shard for one in loaded]
        self.count_bytes = sum(one.count_bytes for one in loaded)
        self.space = merge_shards(self.shards)

    def submit(self, prompts: Sequence[Prompt]) -> int:
        """Queue instructions on every rank, in the same order as other jobs; the job's number."""
        with self._lock:
            job = next(self._jobs)
            queued = [actor.submit.remote(job, list(prompts)) for actor in self._actors]
        try:
            _all(queued)
        except BaseException:
            self.forget(job)
            raise
        return job

    def next(
        self, job: int, function: ShardFunction | None
    ) -> tuple[tuple[str, ...], list[Any]] | None:
        """Ids of the next finished instructions, and each rank's value (`ShardActor.next`).

        None when the job is done. Raises SparcomError if the ranks are not in step.
        """
        replies = _all(
            [
                actor.next.options(concurrency_group="results").remote(job, function)
                for actor in self._actors
            ]
        )
        if replies[0] is None:
            return None
        ids = replies[0][0]
        if any(reply is None or reply[0] != ids for reply in replies):
            raise SparcomError("shards: the ranks finished different instructions")
        return ids, [value for _, value in replies]

    def forget(self, job: int) -> None:
        """Drop a job that is done, or that nobody waits for any more."""
        for actor in () if self._freed else self._actors:
            actor.forget.remote(job)

    def fail(self, error: BaseException) -> None:
        """The group died of this: end it, since the other ranks wait for one that is gone."""
        self.error = self.error or error
        self._free()

    def close(self) -> None:
        """End the actors and free what they had reserved; may be called again."""
        import ray

        # Killed, they would leave temporary files and shared memory.
        if closing := [] if self._freed else [actor.close.remote() for actor in self._actors]:
            ray.wait(closing, num_returns=len(closing), timeout=_PATIENCE)
        self._free()

    def _wait_for_place(self, bundles: list[dict[str, float]], strategy: str) -> None:
        if self._group.wait(_PLACING_S):
            return
        each = ", ".join(f"{amount:g} {name}" for name, amount in bundles[0].items())
        raise SparcomError(
            f"no place for {len(bundles)} shards of {each} each ({strategy}) in {_PLACING_S} s; "
            "`ray status` shows what is free: give the cluster more, or use fewer shards"
        )

    def _make_actor(self, rank: int, cpus: int, gpus: float) -> Any:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        bundle = PlacementGroupSchedulingStrategy(self._group, rank)
        actor = ray.remote(concurrency_groups={"results": 4})(ShardActor)
        return actor.options(num_cpus=cpus, num_gpus=gpus, scheduling_strategy=bundle).remote()

    def _load(self, options: VllmOptions, gpus: float) -> list[Loaded]:
        import ray

        meet = ray.get(self._actors[0].address.remote())
        return _all(
            [
                actor.start.remote(options, rank, 0 if gpus else rank, meet)
                for rank, actor in enumerate(self._actors)
            ]
        )

    def _free(self) -> None:
        import ray
        from ray.util.placement_group import remove_placement_group

        with self._lock:
            freed, self._freed = self._freed, True
        if not freed:
            for actor in self._actors:
                ray.kill(actor)
            remove_placement_group(self._group)


def _all(calls: list[Any]) -> list[Any]:
    """Results of calls on all ranks; raises what the first one raises, while others may hang."""
    import ray

    waiting = list(calls)
    while waiting:
        done, waiting = ray.wait(waiting)
        ray.get(done)
    return ray.get(calls)


def own_error(error: BaseException, ids: Sequence[str] = ()) -> BaseException:
    """What an actor raised; what else Ray raises, as its death, concerns the instructions `ids`."""
    import ray

    cause = getattr(error, "cause", None)  # of Ray's wrapper around what an actor raised
    if isinstance(cause, SparcomError):
        return cause
    if not isinstance(error, ray.exceptions.RayError):
        return error
    line = one_line(cause if isinstance(cause, Exception) else error)
    return PromptError(ids, line) if ids else SparcomError(f"shards: {line}")
