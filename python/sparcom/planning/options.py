"""How a config's engine is loaded, and what it needs."""

import os
from typing import Any

from sparcom.config import RunConfig, keys
from sparcom.engines.base import EngineOptions
from sparcom.errors import InputError
from sparcom.models import resolve_model
from sparcom.quantisation import check_readable


def engine_options(config: RunConfig) -> EngineOptions:
    """How actors load the model of a config.

    Raises InputError for `batch_tokens = "auto"`, which a run turns into a number.
    """
    options = EngineOptions(
        model=resolve_model(config.model),
        dtype=config.dtype,
        batch_tokens=fixed_batch_tokens(config.batch_tokens),
        slots=config.slots,
        threads=cpus_per_actor(config),
        threshold=config.threshold,
        signal=config.signal,
        signs=config.signs,
        magnitudes=config.magnitudes,
        verify=config.verify,
        prove=config.prove,
        trust_remote_code=config.trust_remote_code,
    )
    if config.engine != "vllm":
        return options
    from sparcom.engines.vllm.options import VllmOptions

    served = {name: getattr(config, name) for name in keys(vllm=True)}
    # Where all tokens of a prompt are counted, none of them may come from a cache.
    served["prefix_caching"] &= config.scope not in ("prompt", "all")
    return VllmOptions.of(options, **served)


def fixed_batch_tokens(batch_tokens: int | str) -> int:
    """The number; raises InputError for "auto", where nothing measures."""
    if isinstance(batch_tokens, str):
        raise InputError(
            f"--batch-tokens {batch_tokens}: only sparcom run and sparcom count measure; give a "
            "number"
        )
    return batch_tokens


def context_of(options: EngineOptions, model_config: Any) -> int | None:
    """Longest sequence in tokens that the engine of these options reads; None: nothing says.

    Raises InputError for a model that it does not run, or not in this way.
    """
    from sparcom.engines.vllm.options import VllmOptions

    if isinstance(options, VllmOptions):
        from sparcom.engines.vllm import model_facts

        return model_facts.context_of(options, model_facts.check_model(options))
    from sparcom.engines.transformers import loading

    check_readable(options.model, model_config)
    return loading.context_of(model_config)


def cpus_per_actor(config: RunConfig) -> int:
    """CPU threads of each actor (of each worker of a parallel model): as asked; else this machine's
    cores shared out, or 1 on a cluster, whose machines are not known here."""
    if config.cpus:
        return config.cpus
    if cluster_address(config):
        return 1
    return max(1, len(os.sched_getaffinity(0)) // (config.actors * config.workers))


def cluster_address(config: RunConfig) -> str | None:
    """The cluster to run on, None for a local Ray ("local" to Ray); a job finds its own in
    $RAY_ADDRESS."""
    address = config.ray_address or os.environ.get("RAY_ADDRESS") or None
    return None if address == "local" else address
