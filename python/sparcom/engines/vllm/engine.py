"""The serving engine: vLLM, with exact counts of every instruction that streams through it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.counting.trace import VALUES
from sparcom.engines.base import EngineOptions, check_room
from sparcom.engines.proved import ProvedByCounts
from sparcom.engines.vllm.model_facts import context_of
from sparcom.engines.vllm.options import VllmOptions
from sparcom.engines.vllm.process.launch import check_launch
from sparcom.engines.vllm.process.restartable import Restartable
from sparcom.engines.vllm.process.running import RunningEngine
from sparcom.engines.vllm.process.stream import Finished
from sparcom.engines.vllm.shards.merge import merge_counts
from sparcom.errors import InputError, SparcomError


class VllmEngine(ProvedByCounts):
    """A causal language model served by vLLM that counts while it reads and writes.

    options: EngineOptions, or VllmOptions for what only vLLM has.
    context: longest sequence in tokens, prompt and counted answer together.
    space, info: as of every engine. shards: what each worker counts, in rank order; if an outside
        launcher started the workers, only this rank's.
    count_bytes: memory that the counts take.

    >>> engine = VllmEngine(VllmOptions(model=resolve_model("default"), compile=True))
    >>> for counted in engine.count(prompts):
    ...     print(counted.ids, counted.neurons.shape)
    >>> engine.close()

    `count` may be called from several threads at once: their instructions share the engine. An
    engine that died is started again by the next call (`VllmOptions.restarts`).
    Raises InputError if vLLM, the model or an option does not work, SparcomError if vLLM does not
    start.
    """

    def __init__(self, options: EngineOptions) -> None:
        self.options = options if isinstance(options, VllmOptions) else VllmOptions.of(options)
        self._facts = check_launch(self.options)
        self.context = context_of(self.options, self._facts)
        self._ablated: tuple[np.ndarray, np.ndarray | None, float, int] = (
            np.zeros(0, np.int64), None, 0.0, 0,
        )  # fmt: skip
        self._routed: tuple[np.ndarray, float] = np.zeros(0, np.int64), 0.0
        self._engine = Restartable("engine", self._start, self.options.restarts)

    def _start(self) -> RunningEngine:
        running = RunningEngine(self.options, self._facts)
        self.set_info(running.info)
        self.count_bytes = running.client.count_bytes
        self.space, self.shards = running.space, running.shards
        try:
            if len(self._ablated[0]):  # in the engine before this one
                self._send_ablated(running, *self._ablated)
            if len(self._routed[0]):
                self._send_routed(running, *self._routed)
        except BaseException:
            running.close()
            raise
        return running

    @property
    def recomputed(self) -> int:
        """Tokens read again because the KV cache was too small, since the engine started: raise
        kv_cache_tokens."""
        return self._engine.current.client.recomputed

    @property
    def cached(self) -> int:
        """Tokens that were not read, since an earlier prompt began with them, since the engine
        started; never counted ones (`VllmOptions.prefix_caching`)."""
        return self._engine.current.client.cached

    def count(self, prompts: Sequence[Prompt]) -> Iterator[Counted]:
        """The counts of all prompts, as instructions finish (see `engines.base.Engine`)."""
        if self.options.launched_outside:
            raise SparcomError("this rank holds one shard: use count_parts, or a ShardGroup")
        for finished in self.count_parts(prompts):
            yield merge_counts(self.shards, finished.parts)

    def count_parts(self, prompts: Sequence[Prompt]) -> Iterator[Finished]:
        """As `count`, but with the workers' counts apart, in the order of `shards`."""
        if not self.options.count:
            raise SparcomError("this engine was loaded with count=False")
        return self._run(prompts)

    def trace(
        self, prompts: Sequence[Prompt], index: np.ndarray
    ) -> Iterator[tuple[Counted, list[np.ndarray]]]:
        """As `count`, with what some neurons do at each counted token (`TracingEngine`).

        All prompts are read before the first result. Raises InputError with CUDA graphs, and if the
        engine does not see h.
        """
        running = self._engine.running()
        self._require_h("trace")
        self._require_no_graphs("trace")
        index = np.ascontiguousarray(index, np.int64)
        running.call_workers("sparcom_trace", self.space.to_json(), index.tobytes())
        try:
            groups = list(self.count(prompts))
            parts = running.call_workers("sparcom_traced")
        finally:
            if running.error is None:
                running.call_workers("sparcom_trace", [], None)
        for counted in groups:
            yield (
                counted,
                [
                    _traced(parts, name, int(tokens), len(index))
                    for name, tokens in zip(counted.ids, counted.tokens, strict=True)
                ],
            )

    def read(self, prompts: Sequence[Prompt]) -> int:
        """Run all prompts through the engine without taking counts; the number of prompts."""
        return sum(len(finished.ids) for finished in self._run(prompts))

    def losses(self, prompts: Sequence[Prompt]) -> np.ndarray:
        """[n] mean negative log-likelihood, in nats per token, of each prompt's counted tokens.

        NaN if none of them follows another token.
        """
        at = {prompt.id: i for i, prompt in enumerate(prompts)}
        out = np.full(len(prompts), np.nan)
        for finished in self._run(prompts, scored=True):
            out[[at[name] for name in finished.ids]] = finished.losses
        return out

    def generate(self, prompts: Sequence[Prompt]) -> dict[str, tuple[int, ...]]:
        """Id -> token ids of the answer that the model writes, greedily whatever the temperature of
        the options, without its end token.

        prompts: `generate` of each is the most tokens of its answer. Nothing is counted.
        Raises InputError for a prompt that leaves no room for its answer.
        """
        check_room(prompts, self.context)
        return {
            name: answer
            for finished in self._run(prompts, written=True)
            for name, answer in zip(finished.ids, finished.answers, strict=True)
        }

    def ablate(
        self,
        index: np.ndarray,
        values: np.ndarray | None = None,
        factor: float = 0.0,
        sign: int = 0,
    ) -> None:
        """h of these neurons becomes h * factor + values, and of no others, in every later pass
        (`options.ablation`).

        index: [n] flat indices, sorted, each once; none restores the model. values: [n]; None: 0.
        factor: 0 ablates. sign: 1 or -1: instead h becomes 0 where the gate has this sign, and
        stays elsewhere. Waits for the instructions under way. An engine that starts again keeps
        it. Raises InputError for values if the engine does not see h.
        """
        index = np.ascontiguousarray(index, np.int64)
        if len(index) and not (0 <= index[0] <= index[-1] < self.space.neurons):
            raise InputError(f"ablate: flat indices must be in [0, {self.space.neurons})")
        self._require_ablation()
        if values is not None:
            self._require_h("ablate: values")
        if (running := self._engine.alive()) is not None:  # else the next start sends it
            self._send_ablated(running, index, values, factor, sign)
        self._ablated = index, values, factor, sign

    def route(self, index: np.ndarray, shift: float) -> None:
        """Add `shift` to these experts' logits in their routers, and to no others', in every later
        pass (`options.ablation`).

        index: [n] flat expert indices, sorted, each once; none restores the model. shift: -inf
        routes around them. Raises InputError for -inf if a router adds a bias to its scores or
        takes experts by groups, since it might choose a closed one all the same.
        """
        index = np.ascontiguousarray(index, np.int64)
        if len(index) and not (0 <= index[0] <= index[-1] < self.space.experts):
            raise InputError(f"route: flat expert indices must be in [0, {self.space.experts})")
        self._require_ablation()
        guided = self._engine.current.client.guided
        if len(index) and not np.isfinite(shift) and guided:
            raise InputError(
                f"ablate: the router of {guided[0]} cannot be routed around; ablate its experts "
                "with --how zero"
            )
        if (running := self._engine.alive()) is not None:  # else the next start sends it
            self._send_routed(running, index, shift)
        self._routed = index, shift

    @contextmanager
    def summing(self) -> Iterator[Callable[[], np.ndarray]]:
        """Within the block, each neuron's h is summed over the counted tokens that reach it.

        Yields a function that returns the sums so far, [neurons] float64, and starts again from
        zero (`options.ablation`). Raises InputError with CUDA graphs, which cannot sum, and if the
        engine does not see h.
        """
        self._require_ablation()
        self._require_h("summing")
        self._require_no_graphs("summing")
        running = self._engine.running()

        def sums() -> np.ndarray:
            out = np.zeros((1, self.space.neurons))
            parts = running.call_workers("sparcom_sum", True)
            for shard, part in zip(self.shards, parts, strict=True):
                shard.put_neurons(np.frombuffer(part, np.float64)[None], out)
            return out[0]

        running.call_workers("sparcom_sum", True)
        try:
            yield sums
        finally:
            if running.error is None:
                running.call_workers("sparcom_sum", False)

    def close(self) -> None:
        """End the engine and every process of it; waits for a start under way."""
        self._engine.close()

    def _run(
        self, prompts: Sequence[Prompt], scored: bool = False, written: bool = False
    ) -> Iterator[Finished]:
        """Queue prompts now; their results come as they are asked for."""
        running = self._engine.running()
        self._check_prompts(prompts, running.vocabulary)
        return self._delivered(running.results(prompts, scored, written))

    def _delivered(self, results: Iterator[Finished]) -> Iterator[Finished]:
        for finished in results:
            self._engine.delivered()
            yield finished

    def _check_prompts(self, prompts: Sequence[Prompt], vocabulary: int) -> None:
        for prompt in prompts:
            ids, room = prompt.token_ids, self.context - prompt.generate
            if not 1 <= len(ids) <= room:
                raise InputError(
                    f"instruction {prompt.id}: {len(ids)} tokens, but this engine reads 1 to "
                    f"{room} (context {self.context}, {prompt.generate} of it for the answer); "
                    "shorten or truncate it, or raise context"
                )
            if not 0 <= min(ids) <= max(ids) < vocabulary:
                raise InputError(
                    f"instruction {prompt.id}: token id outside the model's vocabulary of "
                    f"{vocabulary}; its prompt was made for another model"
                )

    def _require_ablation(self) -> None:
        if not self.options.ablation:
            raise SparcomError("this engine was loaded with ablation=False")

    def _require_h(self, what: str) -> None:
        """Raise InputError if h is made outside the activation module, which sees f(gate)."""
        if sites := self._engine.current.client.without_h:
            raise InputError(
                f"{what}: {sites[0]} multiplies gate and up outside its activation, so that vLLM "
                "does not see h there; ablate by zero, or use the transformers engine"
            )

    def _require_no_graphs(self, what: str) -> None:
        """Raise InputError if a pass is replayed from a graph, which holds only what it counted."""
        if self.options.compile and self.info.device != "cpu":
            raise InputError(f"{what}: not from CUDA graphs; load the engine with compile=False")

    def _send_ablated(
        self,
        running: RunningEngine,
        index: np.ndarray,
        values: np.ndarray | None,
        factor: float,
        sign: int,
    ) -> None:
        filled = None if values is None else np.asarray(values, np.float64).tobytes()
        running.call_workers(
            "sparcom_ablate", self.space.to_json(), index.tobytes(), filled, factor, sign
        )

    def _send_routed(self, running: RunningEngine, index: np.ndarray, shift: float) -> None:
        if self.space.experts:
            running.call_workers("sparcom_route", self.space.to_json(), index.tobytes(), shift)


def _traced(parts: Sequence[dict[str, Any]], name: str, tokens: int, n: int) -> np.ndarray:
    """[tokens, n, 4] of an instruction, from what each worker kept of its neurons."""
    out = np.full((tokens, n, len(VALUES)), np.nan, np.float32)
    for part in parts:
        columns = np.frombuffer(part["columns"], np.int64)
        kept = np.frombuffer(part["values"][name], np.float32)
        out[:, columns] = kept.reshape(tokens, len(columns), len(VALUES))
    return out
