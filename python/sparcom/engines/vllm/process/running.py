"""One life of a vLLM engine: its processes, the stream of instructions, and why it died."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from multiprocessing import current_process
from pathlib import Path
from typing import Any

from sparcom.components import ComponentSpace, merge_shards, shards_of
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.base import EngineInfo, PromptError
from sparcom.engines.vllm.model_facts import ModelFacts, context_of, end_tokens
from sparcom.engines.vllm.options import CountingConfig, VllmOptions
from sparcom.engines.vllm.process import launch
from sparcom.engines.vllm.process.client import EngineClient
from sparcom.engines.vllm.process.faults import cause_of, fault_file_in, note_fault, one_line
from sparcom.engines.vllm.process.processes import EngineProcesses
from sparcom.engines.vllm.process.stream import Finished, Stream
from sparcom.engines.vllm.shards import lockstep
from sparcom.engines.vllm.worker.fingerprint import kernel_version
from sparcom.errors import InputError, SparcomError
from sparcom.models import versions

SELF_TEST = "sparcom-self-test"  # the id of an instruction
_REFUSED = f"{InputError.__name__}: "  # in a worker's note: it cannot count this model
_NOT_IMPORTED = "failed to be inspected"  # vLLM's word for a model class that it cannot import
# Without a backend of Triton, vLLM leaves its kernels plain functions, and triton an empty module.
_NO_TRITON = ("'function' object is not subscriptable", "module 'triton' has no attribute")


class RunningEngine:
    """A vLLM engine that runs; `Restartable` starts the next one.

    client: its `EngineClient`.
    info: facts of the loaded engine. vocabulary: number of its token ids.
    shards: what each worker counts, in rank order; only this rank's in an outside launcher's group.
    space: what all of them count; empty with count=False.
    Raises InputError if vLLM or the model is not one that works, SparcomError if vLLM does not
    start, CountError if it does not count. No process is left behind then.
    """

    def __init__(self, options: VllmOptions, facts: ModelFacts) -> None:
        _check_not_imported_by_an_engine()
        self._options, self._facts = options, facts
        self._folder = Path(tempfile.mkdtemp(prefix="sparcom-vllm-"))
        self._faults = fault_file_in(self._folder)
        self._processes = EngineProcesses()
        self._llm: Any = None
        self._stream: Stream
        self._ending = ExitStack()
        self._ending.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self._ending.callback(self._end_processes)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def error(self) -> SparcomError | None:
        """Why it died; None as long as it runs."""
        return self._stream.error

    def results(
        self, prompts: Sequence[Prompt], scored: bool = False, written: bool = False
    ) -> Iterator[Finished]:
        """Queue instructions now; their results come as they are asked for (`Stream.submit`)."""
        return self._stream.results(self._stream.submit(prompts, scored, written))

    def call_workers(self, method: str, *args: Any) -> list[Any]:
        """A method of all workers, once no instruction is under way; their replies."""

        def call() -> list[Any]:
            try:
                return self.client.call_workers(method, *args)
            except Exception as error:
                raise SparcomError(
                    f"vllm {launch.installed_version()}: {method}: {one_line(error)}"
                ) from error

        return self._stream.call(call)

    def close(self) -> None:
        """End the stream, vLLM and every process of it, started whole or half-way."""
        self._ending.close()

    def _start(self) -> None:
        options = self._options
        variables = launch.environment(options, self._folder)
        with launch.environ(variables), self._processes.starting():
            try:
                self._llm = launch.start_engine(options, self._facts, counting_config(options))
            except InputError:
                raise
            except Exception as error:
                raise self._not_started(error) from error
        self.client = EngineClient(self._llm, self._processes, options)
        self.info = self._describe()
        self.vocabulary = self._llm.vllm_config.model_config.get_vocab_size()
        self._meet_workers()
        agree = lockstep.agree if options.launched_outside else None
        self._stream = Stream(self.client, options.slots, self._die, agree)
        self._ending.callback(self._stream.close)
        self._self_test()

    def _not_started(self, error: Exception) -> SparcomError:
        cause = cause_of(error, self._faults)
        if cause.startswith(_REFUSED):
            return InputError(cause.removeprefix(_REFUSED))
        if _NOT_IMPORTED in cause and find_spec("torchvision") is None:
            return InputError(
                f"model {self._options.model}: vllm {launch.installed_version()} could not import "
                "its class for a model that reads images too, even to count text: torchvision is "
                "not installed; install the one that fits torch"
            )
        if quantised := self._facts.quantised:
            return InputError(
                f"model {self._options.model}: its weights are quantised ({quantised}), and vllm "
                f"{launch.installed_version()} did not start with them here: {cause}"
            )
        return SparcomError(f"vllm {launch.installed_version()} did not start: {cause}")

    def _describe(self) -> EngineInfo:
        from vllm.platforms import current_platform

        config = self._llm.vllm_config
        runner = "2" if config.use_v2_model_runner else "1"
        return EngineInfo(
            name="vllm-compiled" if self._options.compile else "vllm",
            dtype=str(config.model_config.dtype).removeprefix("torch."),
            device=current_platform.device_type,
            threads=self._options.threads or len(os.sched_getaffinity(0)),
            batch_tokens=config.scheduler_config.max_num_batched_tokens,
            versions={
                **versions(),
                "vllm": launch.installed_version(),
                "vllm-model-runner": runner,
            },
        )

    def _meet_workers(self) -> None:
        """Learn what each worker counts: together every neuron once."""
        workers = self.client.local_sites
        if self._options.launched_outside and workers:
            workers = lockstep.gather(workers[0])
        shards = shards_of(workers)
        self.space = merge_shards(shards) if shards else ComponentSpace(())
        self.shards = [shards[lockstep.rank()]] if self._options.launched_outside else shards

    def _self_test(self) -> None:
        """Count a few tokens: an engine that does not count must not come to life."""
        ids = (1, 1, 1)[: context_of(self._options, self._facts)]
        try:
            for _ in self.results([Prompt(SELF_TEST, ids, ((0, 1),))]):
                pass
        except PromptError as error:
            triton = any(sign in error.reason for sign in _NO_TRITON)
            why = "; it calls a Triton kernel there, which runs on GPUs alone" if triton else ""
            raise SparcomError(
                f"model {self._options.model}: vllm {launch.installed_version()} loads it, but its "
                f"first pass fails here: {error.reason}{why}"
            ) from error

    def _die(self, error: BaseException, ids: Sequence[str]) -> SparcomError:
        """Called by the stream when a pass failed: ends the processes, and names the cause."""
        cause = cause_of(error, self._faults)
        self._end_processes()
        return error if isinstance(error, SparcomError) else PromptError(ids, cause)

    def _end_processes(self) -> None:
        llm, self._llm = self._llm, None
        self._processes.end(None if llm is None else llm.engine_core.shutdown)


def _check_not_imported_by_an_engine() -> None:
    """Raise InputError in a process of vLLM that is importing the script which started it.

    The script sees only that its engine did not start; the note tells it why.
    """
    if getattr(current_process(), "_inheriting", False):  # as multiprocessing itself asks
        error = InputError(
            "engine vllm: its processes import the script that starts it, and would start another; "
            "put what the script does under `if __name__ == '__main__':`"
        )
        note_fault(error)
        raise error


def counting_config(options: VllmOptions) -> CountingConfig | None:
    """What the workers count; None: nothing."""
    if not options.count:
        return None
    return CountingConfig(
        threshold=options.threshold,
        signal=options.signal,
        slots=options.slots,
        verify=options.verify,
        kernel=kernel_version(),
        signs=options.signs,
        magnitudes=options.magnitudes,
        ablation=options.ablation,
        ends=tuple(end_tokens(options)),
    )
