"""Prompts, reference counts and comparisons that the tests of the vLLM engine share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.engines.base import EngineOptions
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.process import launch
from sparcom.engines.vllm.process.client import EngineClient

CONTEXT = 128
SHAPE = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}


def make_prompts(lengths, tag: str = "p", skip: int = 1) -> list[Prompt]:
    """Random prompts; the first `skip` tokens of each are not counted, where there are more."""
    generator = torch.Generator().manual_seed(7)
    prompts = []
    for at, n in enumerate(lengths):
        ids = tuple(torch.randint(3, 96, (n,), generator=generator).tolist())
        prompts.append(Prompt(f"{tag}{at}", ids, ((min(skip, n - 1), n),)))
    return prompts


@contextmanager
def worker_class(name: str) -> Iterator[None]:
    """Within the block the vLLM engine starts with this worker."""
    build = launch.engine_args
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "engine_args", lambda *args: {**build(*args), "worker_cls": name})
        yield


@contextmanager
def planned_ahead() -> Iterator[None]:
    """Within the block the vLLM engine starts with asynchronous scheduling, which vLLM itself turns
    off on a CPU."""
    from vllm.engine.arg_utils import EngineArgs

    make = EngineArgs.create_engine_config

    def made(arguments: EngineArgs) -> object:
        config = make(arguments)
        config.scheduler_config.async_scheduling = True
        return config

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EngineArgs, "create_engine_config", made)
        yield


def client_of(engine: VllmEngine) -> EngineClient:
    """The running engine's client of vLLM."""
    return engine._engine.current.client


def kill_newest_engine() -> None:
    """Kill the engine process that was started last, as the system does for its memory."""
    engines = [child for child in psutil.Process().children() if "EngineCore" in child.name()]
    max(engines, key=psutil.Process.create_time).kill()


def by_id(groups) -> dict[str, tuple[int, np.ndarray]]:
    found: dict[str, tuple[int, np.ndarray]] = {}
    for group in groups:
        assert isinstance(group, Counted)
        for name, tokens, row in zip(group.ids, group.tokens, group.neurons, strict=True):
            assert name not in found, f"{name} came twice"
            found[name] = (int(tokens), row)
    return found


def share_of_differing_cells(ours: dict, theirs: dict) -> float:
    """Share of cells that differ; no cell may differ by more than 1."""
    assert ours.keys() == theirs.keys()
    assert [ours[k][0] for k in theirs] == [theirs[k][0] for k in theirs]
    apart = np.stack([np.abs(ours[k][1] - theirs[k][1]) for k in theirs])
    assert apart.max() <= 1
    return float((apart > 0).mean())


def reference(folder: Path, prompts: list[Prompt]) -> dict:
    options = EngineOptions(
        model=str(folder), dtype="float32", batch_tokens=256, slots=64, threads=1, device="cpu"
    )
    engine = TransformersEngine(options)
    return by_id(engine.count(prompts))
