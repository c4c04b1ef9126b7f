"""Which engine an actor holds, loaded from a config's options."""

import os
from itertools import zip_longest
from typing import Any

from sparcom.components import ComponentSpace
from sparcom.config import RunConfig
from sparcom.engines.base import Engine, EngineOptions
from sparcom.errors import InputError, SparcomError
from sparcom.models import resolve_model


def engine_options(config: RunConfig) -> EngineOptions:
    """How actors load the model of a config."""
    options = EngineOptions(
        model=resolve_model(config.model),
        dtype=config.dtype,
        batch_tokens=config.batch_tokens,
        slots=config.slots,
        threads=cpus_per_actor(config),
        threshold=config.threshold,
        signal=config.signal,
        verify=config.verify,
        trust_remote_code=config.trust_remote_code,
    )
    if config.engine != "vllm":
        return options
    from sparcom.engines.vllm.options import VllmOptions

    return VllmOptions.of(
        options,
        compile=config.compile,
        tensor_parallel=config.tensor_parallel,
        pipeline_parallel=config.pipeline_parallel,
        expert_parallel=config.expert_parallel,
        context=config.context,
        temperature=config.temperature,
        seed=config.seed,
    )


def context_of(options: EngineOptions, model_config: Any) -> int | None:
    """Longest sequence in tokens that the engine of these options reads; None: nothing says.

    Raises InputError for a model that it does not run, or not in this way.
    """
    from sparcom.engines.vllm.options import VllmOptions

    if isinstance(options, VllmOptions):
        from sparcom.engines.vllm.process import launch

        facts = launch.read_facts(options)
        launch.check_model(options, facts)
        return launch.context_of(options, facts)
    from sparcom.engines.transformers import engine

    return engine.context_of(model_config)


def cpus_per_actor(config: RunConfig) -> int:
    """CPU threads of each actor (of each worker of a parallel model): as asked; else this machine's
    cores shared out, or 1 on a cluster, whose machines are not known here."""
    if config.cpus:
        return config.cpus
    if cluster_address(config):
        return 1
    return max(1, len(os.sched_getaffinity(0)) // (config.actors * config.workers))


def cluster_address(config: RunConfig) -> str | None:
    """The cluster to run on, None for a local Ray; a job finds its own in $RAY_ADDRESS."""
    return config.ray_address or os.environ.get("RAY_ADDRESS") or None


def load_engine(name: str, options: EngineOptions, gpus: float = 0.0) -> Engine:
    """The engine of a name, loaded.

    gpus: of each worker, where the model is shared by several (`engines.vllm.shards`).
    """
    if name == "transformers":
        from sparcom.engines.transformers.engine import TransformersEngine

        return TransformersEngine(options)
    if name == "vllm":
        from sparcom.engines.vllm.engine import VllmEngine

        if options.world_size == 1:
            return VllmEngine(options)
        from sparcom.engines.vllm.shards.shards import ShardGroup

        return ShardGroup(options, gpus=gpus)
    raise InputError(f"engine: expected transformers or vllm, got {name!r}")


def check_sites(engine: Engine, planned: ComponentSpace) -> None:
    """Raise SparcomError where an engine counts other sites than a run was laid out for."""
    for expected, found in zip_longest(planned.sites, engine.space.sites):
        if found != expected:
            raise SparcomError(
                f"engine {engine.info.name}: expected the site {expected}, as run.json has it, got "
                f"{found}; use the transformers engine"
            )
