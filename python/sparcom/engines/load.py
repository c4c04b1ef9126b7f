"""Loading the engine of a name, and checking that it counts what was planned."""

from itertools import zip_longest

from sparcom.components import ComponentSpace
from sparcom.engines.base import Engine, EngineOptions
from sparcom.errors import InputError, SparcomError


def load_engine(name: str, options: EngineOptions, gpus: float = 0.0) -> Engine:
    """The engine of a name, loaded.

    name: "transformers" | "vllm".
    gpus: of each worker, where the model is shared by several (`engines.vllm.shards`).
    """
    if name == "transformers":
        from sparcom.engines.transformers.engine import TransformersEngine

        return TransformersEngine(options)
    if name == "vllm":
        from sparcom.engines.vllm.engine import VllmEngine

        if options.world_size == 1 or options.ablation:  # a shard group cannot ablate
            return VllmEngine(options)
        from sparcom.engines.vllm.shards.shards import ShardGroup

        return ShardGroup(options, gpus=gpus)
    raise InputError(f"engine: expected transformers or vllm, got {name!r}")


def check_sites(engine: Engine, planned: ComponentSpace) -> None:
    """Raise SparcomError if an engine counts other sites than a run was laid out for."""
    for expected, found in zip_longest(planned.sites, engine.space.sites):
        if found != expected:
            raise SparcomError(
                f"engine {engine.info.name}: expected the site {expected}, as run.json has it, got "
                f"{found}; use the transformers engine"
            )
