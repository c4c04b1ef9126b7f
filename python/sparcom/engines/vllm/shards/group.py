"""A model in shards: one Ray actor for each, in one placement group, led from here.

Each actor runs a vLLM engine of its own (`external_launcher`) that holds its shard of the weights
and of the neurons; together they read the same instructions in lockstep. Counts stay where they are
counted until somebody asks: `count` brings them together, `map` runs a function beside them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.engines.proved import ProvedByCounts
from sparcom.engines.vllm.options import VllmOptions
from sparcom.engines.vllm.process.restartable import Restartable
from sparcom.engines.vllm.shards.actor import ShardFunction
from sparcom.engines.vllm.shards.merge import merge_counts
from sparcom.engines.vllm.shards.ranks import Ranks, own_error
from sparcom.errors import InputError, SparcomError


class ShardGroup(ProvedByCounts):
    """An engine whose model is shared by Ray actors; offers what every engine does.

    options: with `tensor_parallel` and `pipeline_parallel`; their product is the number of actors.
    gpus: of each actor; 0 runs on CPU. `options.threads` CPUs are reserved for each (at least 1).
    strategy: of the placement group; tensor parallelism on CPU needs one machine.
    shards: what each actor counts, in rank order. context, count_bytes: as of `VllmEngine`.

    >>> options = VllmOptions(model="meta-llama/Llama-2-13b-hf", tensor_parallel=2)
    >>> group = ShardGroup(options, gpus=1)

    A group that died is started again by the next call (`VllmOptions.restarts`).
    Raises what VllmEngine raises.
    """

    def __init__(
        self, options: VllmOptions, *, gpus: float = 0, strategy: str = "STRICT_PACK"
    ) -> None:
        self.options = replace(options, executor="external_launcher", restarts=0)
        self._gpus, self._strategy = gpus, strategy
        self._ranks = Restartable("shard group", self._start, options.restarts)

    def _start(self) -> Ranks:
        ranks = Ranks(self.options, self._gpus, self._strategy)
        self.set_info(ranks.info)
        self.context, self.count_bytes = ranks.context, ranks.count_bytes
        self.space, self.shards = ranks.space, ranks.shards
        return ranks

    def count(self, prompts: Sequence[Prompt]) -> Iterator[Counted]:
        """The counts of all prompts, shards brought together (see `engines.base.Engine`)."""
        for parts in self.map(prompts, None):
            yield merge_counts(self.shards, parts)

    def map(self, prompts: Sequence[Prompt], function: ShardFunction | None) -> Iterator[list[Any]]:
        """`function(shard, counted)` of each group of finished instructions, a list over shards.

        It runs in the actors, where the counts are; only what it returns travels. None: identity.
        """
        import ray

        ranks, job = self._ranks.running(), None
        left = dict.fromkeys(prompt.id for prompt in prompts)
        try:
            job = ranks.submit(prompts)
            while (finished := ranks.next(job, function)) is not None:
                ids, values = finished
                for name in ids:
                    del left[name]
                self._ranks.delivered()
                yield values
        except (ray.exceptions.RayError, SparcomError) as error:
            told = own_error(error, tuple(left))
            if not isinstance(told, InputError):
                ranks.fail(told)
            raise told from None
        finally:
            if job is not None:
                ranks.forget(job)

    def close(self) -> None:
        """End the actors and free what they had reserved; waits for a start under way."""
        self._ranks.close()
