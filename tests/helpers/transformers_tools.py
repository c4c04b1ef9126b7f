"""Engines on transformers and prompts for their tests."""

import numpy as np
import torch

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.engines.base import EngineOptions
from sparcom.engines.packing import Pass
from sparcom.engines.transformers.engine import TransformersEngine

LENGTHS = (1, 2, 7, 20, 33, 12)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def make_prompts(lengths: tuple[int, ...] = LENGTHS) -> list[Prompt]:
    generator = torch.Generator().manual_seed(1)
    prompts = []
    for at, length in enumerate(lengths):
        ids = tuple(torch.randint(3, 96, (length,), generator=generator).tolist())
        start = min(1, length - 1)  # the first token is not counted, where there is a second
        prompts.append(Prompt(f"p{at}", ids, ((start, length),)))
    return prompts


def load(folder, dtype: str, **options) -> TransformersEngine:
    options = {"batch_tokens": 64, "slots": 8, "threads": 1, "device": "cpu", **options}
    return TransformersEngine(EngineOptions(model=str(folder), dtype=dtype, **options))


def first_activations(engine: TransformersEngine, prompts: list[Prompt]) -> torch.Tensor:
    """What goes into the first down projection: gates there are equal with and without counting."""
    names = ("down_proj", "c_proj", "dense_4h_to_h", "fc2")
    last = [
        m
        for n, m in engine.model.named_modules()
        if n.rsplit(".", 1)[-1] in names and "attn" not in n
    ]
    seen: list[torch.Tensor] = []
    hook = last[0].register_forward_pre_hook(lambda m, args: seen.append(args[0].clone()))
    engine.forward(prompts, Pass((0, 1, 2), 64))
    hook.remove()
    return seen[0].float()


def count_all(engine: TransformersEngine, prompts: list[Prompt]) -> Counted:
    """Counts of all prompts, in their order."""
    rows = {}
    for counted in engine.count(prompts):
        for row, name in enumerate(counted.ids):
            rows[name] = (counted.neurons[row], counted.experts[row], counted.tokens[row])
    neurons, routed, tokens = zip(*(rows[p.id] for p in prompts), strict=True)
    ids = tuple(p.id for p in prompts)
    return Counted(ids, np.array(tokens), np.stack(neurons), np.stack(routed))


def assert_equal(ours: Counted, plain: Counted) -> None:
    np.testing.assert_array_equal(ours.experts, plain.experts)
    np.testing.assert_array_equal(ours.neurons, plain.neurons)
    np.testing.assert_array_equal(ours.tokens, plain.tokens)
