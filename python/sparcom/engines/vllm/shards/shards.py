"""A model in shards: one Ray actor for each, in one placement group, led from here.

Each actor runs a vLLM engine of its own (`external_launcher`) that holds its shard of the weights
and of the neurons; together they read the same instructions in lockstep. Counts stay where they are
counted until somebody asks: `count` brings them together, `map` runs a function beside them.
"""

import itertools
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sparcom.components import Shard, merge_shards
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.engines.base import PromptError
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.engines.vllm.process.stream import Finished
from sparcom.engines.vllm.shards import placement_groups
from sparcom.engines.vllm.shards.held import merge_parts
from sparcom.errors import InputError, SparcomError

_PATIENCE = 20  # seconds
ShardFunction = Callable[[Shard, Counted], Any]


class ShardActor:
    """One rank. Made by ShardGroup; `submit` is called in the same order on every rank."""

    def __init__(self) -> None:
        self._engine: VllmEngine | None = None
        self._jobs: dict[int, Iterator[Finished]] = {}

    def address(self) -> tuple[str, int]:
        """An address and a free port of this rank's machine, for the ranks to meet."""
        import ray

        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def start(self, options: VllmOptions, rank: int, local_rank: int, meet: tuple[str, int]) -> Any:
        """Load this rank's shard; returns (info, context, shard, bytes of the counts)."""
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(local_rank),
            WORLD_SIZE=str(options.world_size),
            MASTER_ADDR=meet[0],
            MASTER_PORT=str(meet[1]),
        )
        engine = self._engine = VllmEngine(options)
        return engine.info, engine.context, engine.shards[0], engine.count_bytes

    def submit(self, job: int, prompts: Sequence[Prompt]) -> None:
        """Queue the instructions of a job."""
        self._jobs[job] = self._engine.count_parts(prompts)

    def next(self, job: int, function: ShardFunction | None) -> tuple[tuple[str, ...], Any] | None:
        """Ids of the next finished instructions, and their counts or what `function` makes of them.

        None when the job is done.
        """
        finished = next(self._jobs[job], None)
        if finished is None:
            return None
        (counted,) = finished.parts
        value = counted if function is None else function(self._engine.shards[0], counted)
        return finished.ids, value

    def forget(self, job: int) -> None:
        """Let go of a job that is done, or that nobody waits for any more."""
        self._jobs.pop(job, None)

    def close(self) -> None:
        """Free the shard."""
        if self._engine is not None:
            self._engine.close()


class ShardGroup:
    """An engine whose model is shared by Ray actors; offers what every engine does.

    options: with `tensor_parallel` and `pipeline_parallel`; their product is the number of actors.
    gpus: of each actor; 0 runs on CPU. `options.threads` CPUs are reserved for each (at least 1).
    strategy: of the placement group; tensor parallelism on CPU needs one machine.

    >>> options = VllmOptions(model="meta-llama/Llama-2-13b-hf", tensor_parallel=2)
    >>> group = ShardGroup(options, gpus=1)

    Raises what VllmEngine raises.
    """

    def __init__(
        self, options: VllmOptions, *, gpus: float = 0, strategy: str = "STRICT_PACK"
    ) -> None:
        self.options = replace(options, executor="external_launcher", restarts=0)
        self._gpus, self._strategy = gpus, strategy
        self._allowed = self._restarts = options.restarts
        self._closed = False
        self._lock, self._numbers = threading.Lock(), itertools.count()
        self._group: Any = None
        self._actors: list[Any] = []
        self._start()

    def _start(self) -> None:
        import ray

        options, cpus = self.options, self.options.threads or 1
        bundle = {"CPU": cpus, **({"GPU": self._gpus} if self._gpus else {})}
        self._group = placement_groups.reserve([bundle] * options.world_size, self._strategy)
        try:
            ray.get(self._group.ready())
            self._actors = [self._make_actor(rank, cpus) for rank in range(options.world_size)]
            meet = ray.get(self._actors[0].address.remote())
            started = _all(
                [
                    one.start.remote(options, rank, 0 if self._gpus else rank, meet)
                    for rank, one in enumerate(self._actors)
                ]
            )
        except BaseException as error:
            self._free()
            raise _own_error(error) from None
        self.info, self.context = started[0][:2]
        self.shards = [shard for _, _, shard, _ in started]
        self.count_bytes = sum(size for *_, size in started)
        self.space = merge_shards(self.shards)

    def _make_actor(self, rank: int, cpus: int) -> Any:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        place = PlacementGroupSchedulingStrategy(self._group, rank)
        actor = ray.remote(concurrency_groups={"results": 4})(ShardActor)
        return actor.options(num_cpus=cpus, num_gpus=self._gpus, scheduling_strategy=place).remote()

    def count(self, prompts: Sequence[Prompt]) -> Iterator[Counted]:
        """The counts of all prompts, shards brought together (see `engines.base.Engine`)."""
        for parts in self.map(prompts, None):
            yield merge_parts(self.shards, parts)

    def map(self, prompts: Sequence[Prompt], function: ShardFunction | None) -> Iterator[list[Any]]:
        """`function(shard, counted)` of each group of finished instructions, a list over shards.

        It runs in the actors, where the counts are; only what it returns travels. None: identity.
        """
        import ray

        with self._lock:
            actors = self._ready()
            job = next(self._numbers)
            queued = [one.submit.remote(job, list(prompts)) for one in actors]
        left = dict.fromkeys(p.id for p in prompts)
        try:
            _all(queued)
            while True:
                calls = [
                    one.next.options(concurrency_group="results").remote(job, function)
                    for one in actors
                ]
                replies = _all(calls)
                if replies[0] is None:
                    return
                if any(reply is None or reply[0] != replies[0][0] for reply in replies):
                    raise SparcomError("shards: the ranks finished different instructions")
                for name in replies[0][0]:
                    del left[name]
                self._restarts = self._allowed  # a group that delivers may break as often again
                yield [value for _, value in replies]
        except ray.exceptions.RayError as error:
            told = _own_error(error, tuple(left))
            if not isinstance(told, InputError):
                with self._lock:
                    if self._actors is actors:  # else another job has found out, and begun anew
                        self._free()  # the other ranks wait for one that will not come
            raise told from None
        finally:
            if self._actors is actors:
                for one in actors:
                    one.forget.remote(job)

    def close(self) -> None:
        """End the actors and free their place."""
        import ray

        self._closed = True
        # Killed, they would leave temporary files and shared memory.
        if closing := [one.close.remote() for one in self._actors]:
            ray.wait(closing, num_returns=len(closing), timeout=_PATIENCE)
        self._free()

    def _ready(self) -> list[Any]:
        """The running actors; a group that broke is started anew, a bounded number of times."""
        if self._closed:
            raise SparcomError("this shard group is closed")
        if not self._actors:
            if not self._restarts:
                raise SparcomError(
                    f"this shard group was started anew as often as allowed ({self._allowed} "
                    "times) without a result"
                )
            self._restarts -= 1
            self._start()
        return self._actors

    def _free(self) -> None:
        import ray
        from ray.util.placement_group import remove_placement_group

        actors, self._actors = self._actors, []
        for one in actors:
            ray.kill(one)
        group, self._group = self._group, None
        if group is not None:
            remove_placement_group(group)


def _all(calls: list[Any]) -> list[Any]:
    """Results of calls on all ranks; raises what the first one raises, while others may hang."""
    import ray

    waiting = list(calls)
    while waiting:
        done, waiting = ray.wait(waiting)
        ray.get(done)
    return ray.get(calls)


def _own_error(error: BaseException, ids: Sequence[str] = ()) -> BaseException:
    """What an actor raised; the death of an actor concerns the instructions under way."""
    import ray

    cause = getattr(error, "cause", None)
    if isinstance(cause, SparcomError):
        return cause
    if isinstance(error, ray.exceptions.RayError) and ids:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return PromptError(ids, line)
    return error
