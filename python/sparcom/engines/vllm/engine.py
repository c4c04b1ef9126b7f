"""The serving engine: vLLM, with exact counts of every instruction that streams through it."""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sparcom.components import ComponentSpace, Shard, merge_shards
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.engines.base import EngineInfo, EngineOptions, PromptError
from sparcom.engines.vllm.options import CountingConfig, VllmOptions
from sparcom.engines.vllm.process import launch
from sparcom.engines.vllm.process.serving import Serving
from sparcom.engines.vllm.process.stream import Finished, Stream
from sparcom.engines.vllm.shards import lockstep
from sparcom.engines.vllm.shards.held import HeldSite, assemble, merge_parts
from sparcom.engines.vllm.worker.fingerprint import kernel_version
from sparcom.errors import InputError, SparcomError
from sparcom.models import versions

_PROBE = "sparcom-self-test"
_REFUSED = f"{InputError.__name__}: "  # in a worker's note: it cannot count this model


class VllmEngine:
    """A causal language model served by vLLM that counts while it reads and writes.

    options: EngineOptions, or VllmOptions for what only vLLM has.

    >>> engine = VllmEngine(VllmOptions(model=resolve_model("default"), compile=True))
    >>> for counted in engine.count(prompts):
    ...     print(counted.ids, counted.neurons.shape)
    >>> engine.close()

    `count` may be called from several threads at once: their instructions share the engine.
    Raises InputError where vLLM, the model or an option is not one that works, SparcomError where
    vLLM does not start.
    """

    def __init__(self, options: EngineOptions) -> None:
        self.options = options if isinstance(options, VllmOptions) else VllmOptions.of(options)
        self._version = launch.check_version()
        self._facts = launch.read_facts(self.options)
        launch.check_model(self.options, self._facts)
        self._lock = threading.Lock()
        self._restarts = self.options.restarts
        self._folder = Path(tempfile.mkdtemp(prefix="sparcom-vllm-"))
        self._llm: Any = None
        self._processes: list[Any] = []
        self._stream: Stream | None = None
        self.count_bytes = 0
        self._ablated: tuple[np.ndarray, np.ndarray | None] = np.zeros(0, np.int64), None
        self._apart: list[str] = []  # names of sites (HeldSite.apart)
        self.space: ComponentSpace
        self.shards: list[Shard] = []
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def context(self) -> int:
        """Longest sequence in tokens: prompt and counted answer together."""
        return launch.context_of(self.options, self._facts)

    @property
    def recomputed(self) -> int:
        """Tokens read again because the KV cache was too small, so far: raise kv_cache_tokens."""
        return self._serving.recomputed

    def count(self, prompts: Sequence[Prompt]) -> Iterator[Counted]:
        """The counts of all prompts, as instructions finish (see `engines.base.Engine`)."""
        if self._launched_outside:
            raise SparcomError("this rank holds one shard: use count_parts, or shards.ShardGroup")
        for finished in self.count_parts(prompts):
            yield merge_parts(self.shards, finished.parts)

    def count_parts(self, prompts: Sequence[Prompt]) -> Iterator[Finished]:
        """As `count`, but with the workers' counts apart, in the order of `shards`."""
        if not self.options.count:
            raise SparcomError("this engine was loaded with count=False")
        return self._run(prompts)

    def read(self, prompts: Sequence[Prompt]) -> int:
        """Run all prompts through the engine without taking counts; the number of prompts."""
        return sum(len(finished.ids) for finished in self._run(prompts))

    def losses(self, prompts: Sequence[Prompt]) -> np.ndarray:
        """[n] mean negative log-likelihood, in nats per token, of each prompt's counted tokens; NaN
        where none of them follows another token."""
        at = {prompt.id: i for i, prompt in enumerate(prompts)}
        out = np.full(len(prompts), np.nan)
        for finished in self._run(prompts, scored=True):
            out[[at[name] for name in finished.ids]] = finished.losses
        return out

    def ablate(self, index: np.ndarray, values: np.ndarray | None = None) -> None:
        """Silence these neurons, and no others, in every later pass (`options.ablation`).

        index: [n] flat indices, sorted, each once; none restores the model. values: [n] what h
        becomes; None: 0. Waits for the instructions under way. An engine that starts anew keeps it.
        Raises InputError for values where the engine does not see h.
        """
        index = np.ascontiguousarray(index, np.int64)
        if len(index) and not (0 <= index[0] <= index[-1] < self.space.neurons):
            raise InputError(f"silence: flat indices must be in [0, {self.space.neurons})")
        stream = self._open_to_ablation()
        if values is not None:
            self._require_h("silence: values")
        if stream.error is None:  # else the next start sends it
            self._send_ablated(stream, index, values)
        self._ablated = index, values

    @contextmanager
    def summing(self) -> Iterator[Callable[[], np.ndarray]]:
        """Within the block, each neuron's h is summed over the counted tokens that reach it.

        Yields a function that returns the sums, [neurons] float64, and begins anew
        (`options.ablation`). CUDA graphs cannot sum, nor can an engine that does not see h:
        InputError.
        """
        stream = self._open_to_ablation()
        self._require_h("summing")
        if self.options.compile and self.info.device != "cpu":
            raise InputError("summing: CUDA graphs cannot sum; load the engine with compile=False")

        def sums() -> np.ndarray:
            out = np.zeros((1, self.space.neurons))
            parts = self._call(stream, "sparcom_sum", True)
            for shard, part in zip(self.shards, parts, strict=True):
                shard.put_neurons(np.frombuffer(part, np.float64)[None], out)
            return out[0]

        self._call(stream, "sparcom_sum", True)
        try:
            yield sums
        finally:
            if stream.error is None:
                self._call(stream, "sparcom_sum", False)

    def close(self) -> None:
        """End the engine and every process that it holds; waits for one that starts anew."""
        with self._lock:
            stream, self._stream = self._stream, None
            if stream is not None:
                stream.close()
            self._stop()
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _launched_outside(self) -> bool:
        return self.options.executor == "external_launcher" and self.options.world_size > 1

    def _run(self, prompts: Sequence[Prompt], scored: bool = False) -> Iterator[Finished]:
        """Queue prompts now; their results come as they are asked for."""
        self._check_prompts(prompts)
        stream = self._ready()
        return self._delivered(stream.results(stream.submit(prompts, scored)))

    def _delivered(self, results: Iterator[Finished]) -> Iterator[Finished]:
        """Results as they come. An engine that delivers may be started anew as often again."""
        for finished in results:
            self._restarts = self.options.restarts
            yield finished

    def _check_prompts(self, prompts: Sequence[Prompt]) -> None:
        for prompt in prompts:
            ids, room = prompt.token_ids, self.context - prompt.generate
            if not 1 <= len(ids) <= room:
                raise InputError(
                    f"instruction {prompt.id}: {len(ids)} tokens, but this engine reads 1 to "
                    f"{room} (context {self.context}, {prompt.generate} of it for the answer); "
                    "shorten or truncate it, or raise context"
                )
            if not 0 <= min(ids) <= max(ids) < self._vocabulary:
                raise InputError(
                    f"instruction {prompt.id}: token id outside the model's vocabulary of "
                    f"{self._vocabulary}; its prompt was made for another model"
                )

    def _ready(self) -> Stream:
        """The running stream; an engine that died is started anew, a bounded number of times."""
        with self._lock:
            if self._stream is None:
                raise SparcomError("this engine is closed")
            if self._stream.error is not None:
                if not self._restarts:
                    # No PromptError: the ids of the last one are others' instructions.
                    raise SparcomError(
                        f"this engine was started anew as often as allowed ({self.options.restarts}"
                        f" times) without a result; the last time: {self._stream.error}"
                    ) from self._stream.error
                self._restarts -= 1
                self._start()
            return self._stream

    def _open_to_ablation(self) -> Stream:
        if not self.options.ablation:
            raise SparcomError("this engine was loaded with ablation=False")
        if self._stream is None:
            raise SparcomError("this engine is closed")
        return self._stream

    def _require_h(self, what: str) -> None:
        """Raise InputError where h is made outside the activation module, which sees f(gate)."""
        if self._apart:
            raise InputError(
                f"{what}: {self._apart[0]} multiplies gate and up outside its activation, so that "
                "vLLM does not see h there; silence by zero, or use the transformers engine"
            )

    def _send_ablated(self, stream: Stream, index: np.ndarray, values: np.ndarray | None) -> None:
        if values is not None:
            values = np.asarray(values, np.float64).tobytes()
        self._call(stream, "sparcom_ablate", self.space.to_json(), index.tobytes(), values)

    def _call(self, stream: Stream, method: str, *args: Any) -> list[Any]:
        """A method of all workers, called while no instruction is under way; their replies."""
        llm = self._llm

        def call() -> list[Any]:
            try:
                return llm.collective_rpc(method, args=args)
            except Exception as error:
                first = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise SparcomError(f"vllm {self._version}: {method}: {first}") from error

        return stream.call(call)

    def _start(self) -> None:
        options = self.options
        counting = None
        if options.count:
            counting = CountingConfig(
                options.threshold, options.signal, options.slots, options.verify, kernel_version(),
                options.ablation,
            )  # fmt: skip
        fault_file = self._folder / "faults"
        fault_file.write_text("")
        self._stop()
        with (
            launch.environ(launch.environment(options, str(fault_file))),
            launch.started_processes() as self._processes,
        ):
            try:
                self._llm = launch.start_engine(options, self._facts, counting)
            except InputError:
                raise
            except Exception as error:
                cause = _cause(error, fault_file)
                if cause.startswith(_REFUSED):
                    raise InputError(cause.removeprefix(_REFUSED)) from error
                raise SparcomError(f"vllm {self._version} did not start: {cause}") from error
        self.info = self._describe()
        self._vocabulary = self._llm.vllm_config.model_config.get_vocab_size()
        if options.count:
            self._meet_workers()
        self._serving = serving = Serving(self._llm, options, self.shards, end_tokens(options))
        agree = lockstep.agree if self._launched_outside else None
        self._stream = Stream(serving, options.slots, self._end_of_engine(fault_file), agree)
        self._self_test()
        if len(self._ablated[0]):  # of the engine before this one
            self._send_ablated(self._stream, *self._ablated)

    def _stop(self) -> None:
        """End vLLM and what it has started, whole or half-way."""
        llm, self._llm = self._llm, None
        processes, self._processes = self._processes, []
        launch.stop_engine(llm, processes)

    def _end_of_engine(self, fault_file: Path) -> Callable[..., SparcomError]:
        """What the stream calls when a pass failed: frees the engine, and names the cause."""
        llm, processes = self._llm, self._processes

        def end(error: BaseException, ids: Sequence[str]) -> SparcomError:
            launch.stop_engine(llm, processes)
            if isinstance(error, SparcomError):
                return error
            return PromptError(ids, _cause(error, fault_file))

        return end

    def _meet_workers(self) -> None:
        """Learn what each worker holds."""
        replies = self._llm.collective_rpc("sparcom_sites")
        held = [[HeldSite.from_json(site) for site in reply["sites"]] for reply in replies]
        self.count_bytes = sum(reply["bytes"] for reply in replies)
        if self._launched_outside:
            held = lockstep.gather(held[0])
        self._apart = [site.site.name for worker in held for site in worker if site.apart]
        self.space, shards = assemble(held)
        merge_shards(shards)
        self.shards = [shards[lockstep.rank()]] if self._launched_outside else shards

    def _self_test(self) -> None:
        """Count three tokens: an engine that does not count must not come to life."""
        probe = Prompt(_PROBE, (1, 1, 1)[: self.context], ((0, 1),))
        stream = self._stream
        for _ in stream.results(stream.submit([probe])):
            pass

    def _describe(self) -> EngineInfo:
        from vllm.platforms import current_platform

        config = self._llm.vllm_config
        return EngineInfo(
            name="vllm-compiled" if self.options.compile else "vllm",
            dtype=str(config.model_config.dtype).removeprefix("torch."),
            device=current_platform.device_type,
            threads=self.options.threads or len(os.sched_getaffinity(0)),
            batch_tokens=config.scheduler_config.max_num_batched_tokens,
            versions={**versions(), "vllm": self._version},
        )


def end_tokens(options: VllmOptions) -> list[int]:
    """Token ids that end an answer, from the generation config, else the model's config."""
    from transformers import AutoConfig, GenerationConfig

    try:
        ends = GenerationConfig.from_pretrained(options.model).eos_token_id
    except OSError:  # there is no generation_config.json
        ends = None
    if ends is None:
        config = AutoConfig.from_pretrained(
            options.model, trust_remote_code=options.trust_remote_code
        )
        ends = config.get_text_config().eos_token_id
    return list(ends) if isinstance(ends, list | tuple) else [] if ends is None else [ends]


def _cause(error: BaseException, fault_file: Path) -> str:
    """One line: what the workers noted, else the exception itself."""
    noted = fault_file.read_text().strip().splitlines() if fault_file.is_file() else []
    if noted:
        return noted[0]
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")
