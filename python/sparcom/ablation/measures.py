"""Measuring what a model loses: losses on reference answers, with and without components."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparcom.ablation.ablator import Ablator
from sparcom.ablation.options import AblationOptions
from sparcom.ablation.target import Target
from sparcom.config import RunConfig
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.corpus.schema import Instruction
from sparcom.engines.base import EngineOptions
from sparcom.engines.load import load_engine
from sparcom.planning.options import engine_options
from sparcom.planning.prompts import PromptMaker


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Nats per token of the reference answer.

    whole: [n] of the whole model; ablated: [targets][n]; random: [targets][draws, n], of the
    matched random sets of each target.
    """

    whole: np.ndarray
    ablated: list[np.ndarray]
    random: list[np.ndarray]


def options_of_engine(config: RunConfig, options: AblationOptions) -> EngineOptions:
    """How the engine that measures is loaded: vLLM's in as many shards as the run says."""
    if options.engine == "transformers":
        config = replace(
            config, engine="transformers", generate=0, tensor_parallel=1, pipeline_parallel=1,
            expert_parallel=False, context=None,
        )  # fmt: skip
        return replace(engine_options(config), threads=options.threads)
    found: Any = engine_options(replace(config, engine="vllm"))
    # CUDA graphs cannot sum what the means are made of.
    vllm: EngineOptions = replace(found, threads=options.threads, ablation=True,
                                  compile=found.compile and options.how != "mean")  # fmt: skip
    return vllm


@contextmanager
def open_ablator(engine_of: EngineOptions, options: AblationOptions) -> Iterator[Ablator]:
    """The loaded engine, ready to ablate; closed after the block."""
    engine = load_engine(options.engine, engine_of)
    try:
        if options.engine == "transformers":
            from sparcom.ablation.transformers_ablator import TransformersAblator

            yield TransformersAblator(engine, options.how)
        else:
            from sparcom.ablation.vllm_ablator import VllmAblator

            yield VllmAblator(engine, options.how)
    finally:
        engine.close()


def measure(
    ablator: Ablator,
    maker: PromptMaker,
    config: RunConfig,
    instructions: Sequence[Instruction],
    targets: Sequence[Target],
    random: Sequence[Sequence[Target]],
    tick: Callable[[], None],
) -> Losses:
    """Losses of instructions that have a reference answer.

    maker: makes their prompts; config: of the run; random: the random sets of each target.
    tick: called after each measurement.
    """

    def prompts(scope: str) -> list[Prompt]:
        rule = replace(config, scope=scope, generate=0, max_tokens=None)
        return maker.changed(rule).prompts(instructions)

    answers = prompts("response")
    if ablator.how == "mean":
        ablator.calibrate(prompts("all"))

    def losses_without(target: Target) -> np.ndarray:
        with ablator.ablated(target):
            out = ablator.losses(answers)
        tick()
        return out

    whole = ablator.losses(answers)
    tick()
    return Losses(
        whole=whole,
        ablated=[losses_without(target) for target in targets],
        random=[np.stack([losses_without(one) for one in ones]) for ones in random],
    )
