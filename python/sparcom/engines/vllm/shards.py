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

import numpy as np

from sparcom.components import Shard, merge_shards
from sparcom.corpus.prompts import Prompt
from sparcom.counting.recorder import Counted
from sparcom.engines.base import PromptError
from sparcom.engines.vllm.engine import VllmEngine, merge_parts
from sparcom.engines.vllm.options import VllmOptions
from sparcom.engines.vllm.stream import Finished
from sparcom.errors import SparcomError

ShardFunction = Callable[[Shard, Finished], Any]


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
        """Ids of the next finished instructions, and their Finished or what `function` makes of it.

        None when the job is done.
        """
        finished = next(self._jobs[job], None)
        if finished is None:
            del self._jobs[job]
            return None
        value = finished if function is None else function(self._engine.shards[0], finished)
        return finished.ids, value

    def close(self) -> None:
        """Free the shard."""
        if self._engine is not None:
            self._engine.close()


class ShardGroup:
    """An engine whose model is shared by Ray actors; offers what every engine does.

    options: with `tensor_parallel` and `pipeline_parallel`; their product is the number of actors.
    gpus: of each actor; 0 runs on CPU. `options.threads` CPUs are reserved for each (at least 1).
    strategy: of the placement group; tensor parallelism on CPU needs one machine.

    >>> group = ShardGroup(VllmOptions(model="meta-llama/Llama-2-13b-hf", tensor_parallel=2), gpus=1)

    Raises what VllmEngine raises.
    """

    def __init__(
        self, options: VllmOptions, *, gpus: float = 0, strategy: str = "STRICT_PACK"
    ) -> None:
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        self.options = replace(options, executor="external_launcher", restarts=0)
        cpus = options.threads or 1
        bundle = {"CPU": cpus, **({"GPU": gpus} if gpus else {})}
        self._lock, self._numbers = threading.Lock(), itertools.count()
        self._group = placement_group([bundle] * options.world_size, strategy=strategy)
        self._actors: list[Any] = []
        try:
            ray.get(self._group.ready())
            actor = ray.remote(concurrency_groups={"results": 4})(ShardActor)
            for rank in range(options.world_size):
                place = PlacementGroupSchedulingStrategy(self._group, rank)
                self._actors.append(
                    actor.options(
                        num_cpus=cpus, num_gpus=gpus, scheduling_strategy=place
                    ).remote()
                )
            meet = ray.get(self._actors[0].address.remote())
            started = ray.get(
                [
                    one.start.remote(self.options, rank, 0 if gpus else rank, meet)
                    for rank, one in enumerate(self._actors)
                ]
            )
        except BaseException as error:
            self.close()
            raise _own_error(error) from None
        self.info, self.context = started[0][:2]
        self.shards = [shard for _, _, shard, _ in started]
        self.count_bytes = sum(size for *_, size in started)
        self.space = merge_shards(self.shards)

    def count(self, prompts: Sequence[Prompt]) -> Iterator[Counted]:
        """The counts of all prompts, shards brought together (see `engines.base.Engine`)."""
        for parts in self.map(prompts, None):
            first = parts[0]
            neurons = merge_parts(self.space, self.shards, [part.neurons for part in parts])
            experts = np.zeros((len(first.ids), 0), np.int32)
            yield Counted(first.ids, first.tokens, neurons, experts)

    def map(self, prompts: Sequence[Prompt], function: ShardFunction | None) -> Iterator[list[Any]]:
        """`function(shard, finished)` of each group of finished instructions, a list over shards.

        It runs in the actors, where the counts are; only what it returns travels. None: identity.
        """
        import ray

        with self._lock:
            job = next(self._numbers)
            queued = [one.submit.remote(job, list(prompts)) for one in self._actors]
        try:
            ray.get(queued)
            while True:
                replies = ray.get(
                    [
                        one.next.options(concurrency_group="results").remote(job, function)
                        for one in self._actors
                    ]
                )
                if replies[0] is None:
                    return
                if any(reply is None or reply[0] != replies[0][0] for reply in replies):
                    raise SparcomError("shards: the ranks finished different instructions")
                yield [value for _, value in replies]
        except ray.exceptions.RayError as error:
            raise _own_error(error, prompts) from None

    def close(self) -> None:
        """End the actors and free their place."""
        import ray
        from ray.util.placement_group import remove_placement_group

        actors, self._actors = self._actors, []
        for one in actors:
            ray.kill(one)
        group, self._group = self._group, None
        if group is not None:
            remove_placement_group(group)


def _own_error(error: BaseException, prompts: Sequence[Prompt] = ()) -> BaseException:
    """What an actor raised; the death of an actor concerns the instructions under way."""
    import ray

    cause = getattr(error, "cause", None)
    if isinstance(cause, SparcomError):
        return cause
    if isinstance(error, ray.exceptions.RayError) and prompts:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return PromptError([p.id for p in prompts], line)
    return error
