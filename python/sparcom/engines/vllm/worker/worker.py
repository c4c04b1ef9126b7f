"""The workers: vLLM's own for this platform, with counting put into their passes.

`CountingWorker` is named in vLLM's configuration and built in each worker process. It exchanges the
model's activation modules once the weights are loaded, tells them before each real pass which rows
belong to which instruction, and hands counts out through `collective_rpc`. Errors that vLLM would
only log are returned as values, or noted in the fault file that the front end reads.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from vllm.platforms import current_platform

from sparcom.components import ComponentSpace, Shard
from sparcom.counting.recorder import Recorder
from sparcom.engines.vllm.options import CountingConfig
from sparcom.engines.vllm.process.faults import note_fault
from sparcom.engines.vllm.worker.ablation import AblationBuffers
from sparcom.engines.vllm.worker.allocator import keep_memory
from sparcom.engines.vllm.worker.amx import permit_amx
from sparcom.engines.vllm.worker.counting_op import StepCounter, use_counter
from sparcom.engines.vllm.worker.cpu_faults import put_right
from sparcom.engines.vllm.worker.finite import FiniteCheck
from sparcom.engines.vllm.worker.moe import bind_experts, counted_experts
from sparcom.engines.vllm.worker.rows import RowMap
from sparcom.engines.vllm.worker.runners import count_passes
from sparcom.engines.vllm.worker.sites import instrument
from sparcom.errors import InputError, SparcomError

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as PlatformWorker
else:
    from vllm.v1.worker.gpu_worker import Worker as PlatformWorker


class PlainWorker(PlatformWorker):
    """vLLM's worker with this project's memory settings, and nothing counted."""

    def __init__(self, *args: Any, **options: Any) -> None:
        keep_memory()
        permit_amx()
        if options.get("distributed_init_method") == "env://":
            options["distributed_init_method"] = meeting_place()
        super().__init__(*args, **options)

    def load_model(self, *args: Any, **options: Any) -> None:
        """As vLLM's, without what it computes wrongly on CPU."""
        put_right()
        super().load_model(*args, **options)

    def determine_available_memory(self) -> int:
        """As vLLM's, after the pass that makes the pipeline's buffers.

        On CPU vLLM skips that pass in eager mode (seen in 0.32.0): a later stage of the pipeline
        then has no buffer for its input, and an assertion of vLLM's fails.
        """
        if current_platform.is_cpu() and self.parallel_config.pipeline_parallel_size > 1:
            self.model_runner.profile_run()
        return super().determine_available_memory()

    def execute_model(self, *args: Any, **options: Any) -> Any:
        """As vLLM's; what it raises is noted for the front end, which sees only a dead engine."""
        try:
            return super().execute_model(*args, **options)
        except Exception as error:
            note_fault(error)
            raise

    def sample_tokens(self, *args: Any, **options: Any) -> Any:
        """As vLLM's; what it raises is noted, and discarded tokens take nothing from their seed.

        vLLM's first runner samples after each chunk of a prompt, and then rewinds the request's
        generator by an offset, which generators of a CPU do not have: torch raises (seen in 0.32.0
        with a seed and a prompt in chunks). So the generators of such requests are put aside
        meanwhile.
        """
        runner, generators, aside = self.model_runner, {}, {}
        if current_platform.is_cpu() and not self.use_v2_model_runner:
            generators, discarded = runner.input_batch.generators, runner.discard_request_mask.np
            aside = {at: generators.pop(at) for at in list(generators) if discarded[at]}
        try:
            return super().sample_tokens(*args, **options)
        except Exception as error:
            note_fault(error)
            raise
        finally:
            generators.update(aside)


class CountingWorker(PlainWorker):
    """A worker whose passes are counted; its `sparcom_` methods are called on every rank."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.sparcom_rows = RowMap()

    def load_model(self, *args: Any, **options: Any) -> None:
        """Load the model, then put counting into it; what fails is noted for the front end."""
        try:
            with counted_experts():
                super().load_model(*args, **options)
            self._sparcom_instrument(self.vllm_config.additional_config)
        except Exception as error:
            note_fault(error)
            raise

    def compile_or_warm_up_model(self) -> Any:
        """As vLLM's, which warms its second runner up with requests of its own: nobody's."""
        with self.sparcom_rows.ignoring():
            return super().compile_or_warm_up_model()

    def _sparcom_instrument(self, config: CountingConfig) -> None:
        runner = self.model_runner
        found = self.sparcom_found = instrument(runner.get_model(), config.signal)
        if (config.signs or config.magnitudes) and found.without_h:
            what = "signs" if config.signs else "magnitudes"
            raise InputError(
                f"{what}: {found.without_h[0]} multiplies gate and up outside its activation, so "
                "that vLLM does not show them there; use the transformers engine"
            )
        if config.magnitudes and self.device.type != "cpu":
            raise InputError("magnitudes: vLLM adds them up on CPU alone; use the transformers "
                             "engine")  # fmt: skip
        recorder = Recorder(
            [local.as_counted for local in found.local],
            config.slots,
            partial=[at for at, local in enumerate(found.local) if local.partial],
            threshold=config.threshold,
            signal=config.signal,
            signs=config.signs,
            magnitudes=config.magnitudes,
            verify=config.verify,
            device=self.device,
        )
        ends = config.ends if self.vllm_config.scheduler_config.async_scheduling else ()
        counter = self.sparcom_counter = StepCounter(recorder, runner.max_num_tokens, ends)
        bind_experts(found.banks, counter, runner.max_num_tokens)
        use_counter(counter)
        self.sparcom_recorder = recorder
        self.sparcom_finite = FiniteCheck(config.slots, self.device)
        if config.ablation:
            graphs = self.device.type != "cpu" and not self.model_config.enforce_eager
            self.sparcom_ablation = AblationBuffers(recorder, self.model_config.dtype, graphs)
            for bank in found.banks:
                bank.open_router(self.device)
        self.sparcom_tracing = ExitStack()
        self.sparcom_traces: dict[str, bytes] = {}
        second = self.use_v2_model_runner
        count_passes(runner, second, counter, self.sparcom_rows, self.sparcom_finite)

    def sparcom_sites(self) -> dict[str, Any]:
        """What this rank counts: `sites` (LocalSite as JSON), those `without_h` and the `guided`
        ones, by name, and the `bytes` of its counts."""
        found = self.sparcom_found
        return {
            "sites": [local.to_json() for local in found.local],
            "without_h": list(found.without_h),
            "guided": [bank.local.site.name for bank in found.banks if bank.guided],
            "bytes": self.sparcom_recorder.nbytes,
        }

    def sparcom_take(
        self, ids: Sequence[str], slots: Sequence[int], tokens: Sequence[int]
    ) -> dict[str, Any]:
        """Proved counts of finished slots, or `error`: why they cannot be right, or mean nothing.

        `neurons`: [n, local neurons] as bytes in the narrowest `dtype` that holds them; `experts`:
        [n, local experts] int32 as bytes; `signs`: [2, n, local neurons] as `neurons`, b"" without;
        `magnitudes`: as bytes, b"" without; `recomputed`: tokens of preempted requests so far;
        `cached`: tokens that vLLM had from earlier requests so far.
        """
        try:
            counted = self.sparcom_recorder.take(ids, slots, tokens)
        except SparcomError as error:
            return {"error": str(error)}
        self.sparcom_rows.close(slots)
        if (trace := self.sparcom_recorder.trace) is not None:
            self.sparcom_traces |= {
                name: trace.take(slot).tobytes() for name, slot in zip(ids, slots, strict=True)
            }
        wrong = self.sparcom_finite.check(ids, slots)
        self.sparcom_finite.clear(slots)
        if wrong:
            return {"error": wrong}
        dtype = np.min_scalar_type(max(tokens))  # a proved count is at most T
        return {
            "neurons": counted.neurons.astype(dtype).tobytes(),
            "dtype": dtype.str,
            "experts": counted.experts.tobytes(),
            "magnitudes": b"" if counted.magnitudes is None else counted.magnitudes.to_bytes(),
            "signs": b"" if counted.signs is None else counted.signs.astype(dtype).tobytes(),
            "recomputed": self.sparcom_rows.recomputed,
            "cached": self.sparcom_rows.cached,
        }

    def sparcom_drop(self, slots: Sequence[int]) -> None:
        """Forget what was counted in the slots of aborted requests."""
        self.sparcom_recorder.drop(slots)
        self.sparcom_finite.clear(slots)
        self.sparcom_rows.close(slots)

    def sparcom_ablate(
        self, sites: Sequence[dict[str, Any]], index: bytes, values: bytes | None, factor: float,
        sign: int,
    ) -> None:  # fmt: skip
        """Ablate this rank's part of some neurons, and no others, from the next pass on.

        sites: of the whole space, as JSON; index: [n] int64 as bytes, flat in it, sorted;
        values: [n] float64 as bytes, what is added after the factor, or None for 0. sign: as of
        `AblationBuffers.set`.
        """
        local, at = self._sparcom_local(sites, index)
        added = None if values is None else np.frombuffer(values, np.float64)[at]
        self.sparcom_ablation.set(local, added, factor, sign)

    def _sparcom_local(
        self, sites: Sequence[dict[str, Any]], index: bytes
    ) -> tuple[np.ndarray, np.ndarray]:
        """(flat indices in this rank's own sites, places in `index`) of the neurons that it has.

        sites: of the whole space, as JSON; index: [n] int64 as bytes, flat in it, each once.
        """
        mine = Shard(ComponentSpace.from_json(sites), self.sparcom_found.local).neuron_indices()
        wanted = np.frombuffer(index, np.int64)
        _, local, at = np.intersect1d(mine, wanted, assume_unique=True, return_indices=True)
        return local, at

    def sparcom_trace(self, sites: Sequence[dict[str, Any]], index: bytes | None) -> None:
        """From the next pass on keep what this rank's part of some neurons does; None: no more.

        sites, index: as in `sparcom_ablate`.
        """
        self.sparcom_tracing.close()
        self.sparcom_traces.clear()
        if index is not None:
            local, self.sparcom_columns = self._sparcom_local(sites, index)
            self.sparcom_tracing.enter_context(self.sparcom_recorder.tracing(local))

    def sparcom_traced(self) -> dict[str, Any]:
        """What was kept: `columns`, [n] int64 as bytes, places in the index that was given, and
        `values`: id -> [T, n, 4] float32 as bytes."""
        return {
            "columns": self.sparcom_columns.astype(np.int64).tobytes(),
            "values": dict(self.sparcom_traces),
        }

    def sparcom_route(self, sites: Sequence[dict[str, Any]], index: bytes, shift: float) -> None:
        """Add `shift` to the router logits of some experts, and of no others, in every later pass.

        sites: of the whole space, as JSON; index: [n] int64 as bytes, flat expert indices in it.
        """
        space, chosen = ComponentSpace.from_json(sites), np.frombuffer(index, np.int64)
        for bank in self.sparcom_found.banks:
            at = space.sites.index(bank.local.site)
            start, stop = space.expert_offsets[at : at + 2]
            bank.shift_logits(chosen[(chosen >= start) & (chosen < stop)] - start, shift)

    def sparcom_sum(self, begin: bool) -> bytes:
        """[local neurons] float64 as bytes: sums over counted rows since the last call that began
        (`Recorder.summing`), b"" without one. begin: start again from zero; else stop summing."""
        return self.sparcom_ablation.sums(begin)


def meeting_place() -> str:
    """Where the ranks of an outside launcher meet, by address and port.

    On CPU vLLM names the shared memory of a group's sums after what follows the last colon of this
    text (seen in 0.32.0), and of `env://` that is the same for every group: two groups on one
    machine would add into each other's sums.
    """
    return f"tcp://{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
