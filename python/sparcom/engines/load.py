"""Loading an engine by its name."""

from collections.abc import Callable
from dataclasses import replace
from itertools import zip_longest

from sparcom.components import ComponentSpace
from sparcom.engines.against import Prover
from sparcom.engines.base import Engine, EngineOptions
from sparcom.engines.batch_size import Resizable
from sparcom.errors import InputError, SparcomError


def load_engine(
    name: str,
    options: EngineOptions,
    gpus: float = 0.0,
    longest: int = 512,
    choose: Callable[[Resizable], int] | None = None,
) -> Engine:
    """The engine of a name, loaded and proved (`EngineOptions.prove`).

    name: "transformers" | "vllm".
    options: for vllm, VllmOptions. If several workers share the model, they are Ray actors
        (`ShardGroup`), or vLLM's own processes with `ablation=True`, which actors cannot do.
    gpus: of each actor, if actors share the model.
    longest: vllm: tokens of a prompt of the proof that exceeds the model's windows; it is left out
        if it would be longer.
    choose: transformers: what returns `batch_tokens` in place of those of the options, once it is
        given the engine, loaded and not yet proved.
    Raises InputError if the name, the model or an option does not work, or if what is counted is
    not the model's own pass.

    >>> engine = load_engine("transformers", EngineOptions(resolve_model("default")))
    """
    if name == "transformers":
        from sparcom.engines.transformers.engine import TransformersEngine

        if choose is None:
            return TransformersEngine(options)
        unproved = TransformersEngine(replace(options, prove=False))
        unproved.set_batch_tokens(choose(unproved))
        if options.prove:
            unproved.prove()
        return unproved
    if name == "vllm":
        from sparcom.engines.vllm.engine import VllmEngine
        from sparcom.engines.vllm.known_differences import KNOWN
        from sparcom.engines.vllm.options import VllmOptions
        from sparcom.engines.vllm.shards.group import ShardGroup

        options = options if isinstance(options, VllmOptions) else VllmOptions.of(options)
        prover = Prover.of(options, min(longest, options.context or longest))
        one = options.world_size == 1 or options.ablation
        engine = VllmEngine(options) if one else ShardGroup(options, gpus=gpus)
        try:
            engine.set_proof(prover.prove(engine, KNOWN), prover.why)
        except BaseException:
            engine.close()
            raise
        return engine
    raise InputError(f"engine: expected transformers or vllm, got {name!r}")


def check_sites(engine: Engine, planned: ComponentSpace) -> None:
    """Raise SparcomError if an engine counts other sites than its run was planned for."""
    for expected, found in zip_longest(planned.sites, engine.space.sites):
        if found == expected:
            continue
        name = engine.info.name
        if found and expected and replace(found, activation=expected.activation) == expected:
            raise SparcomError(
                f"engine {name} computes {found.activation} in {found.name}, where transformers "
                f"computes {expected.activation}; use the transformers engine"
            )
        raise SparcomError(
            f"engine {name}: expected the site {expected}, as run.json has it, got {found}; use "
            "the transformers engine"
        )
