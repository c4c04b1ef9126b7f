"""The Ray actor that holds one shard of a model, in a vLLM engine of its own."""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sparcom.components import Shard
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.engines.base import EngineInfo
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.engines.vllm.process.stream import Finished

ShardFunction = Callable[[Shard, Counted], Any]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a rank has loaded. context: longest sequence in tokens."""

    info: EngineInfo
    context: int
    shard: Shard
    count_bytes: int


class ShardActor:
    """One rank, made by `Ranks`; `submit` is called in the same order on every rank."""

    def __init__(self) -> None:
        self._engine: VllmEngine  # once started
        self._jobs: dict[int, Iterator[Finished]] = {}

    def address(self) -> tuple[str, int]:
        """An address and a free port of this rank's machine, for the ranks to meet."""
        import ray

        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def start(
        self, options: VllmOptions, rank: int, local_rank: int, meet: tuple[str, int]
    ) -> Loaded:
        """Load this rank's shard."""
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(local_rank),
            WORLD_SIZE=str(options.world_size),
            MASTER_ADDR=meet[0],
            MASTER_PORT=str(meet[1]),
        )
        engine = self._engine = VllmEngine(options)
        return Loaded(
            info=engine.info,
            context=engine.context,
            shard=engine.shards[0],
            count_bytes=engine.count_bytes,
        )

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
        """Drop a job that is done, or that nobody waits for any more."""
        self._jobs.pop(job, None)

    def close(self) -> None:
        """Free the shard."""
        if self._engine is not None:
            self._engine.close()
