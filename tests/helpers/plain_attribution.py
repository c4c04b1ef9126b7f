"""The likelihood of an answer by unmodified transformers, and an engine of the same tiny model."""

from pathlib import Path

import numpy as np
import torch
from tiny_models import save_tiny_model
from transformers import AutoModelForCausalLM

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.base import EngineOptions
from sparcom.engines.transformers.engine import TransformersEngine

IDS = tuple(int(i) for i in np.random.default_rng(0).integers(3, 90, 17))
PROMPT = Prompt("p", IDS, ((11, 17),))  # an answer of six tokens


def engine_of(folder: Path, family: str) -> TransformersEngine:
    save_tiny_model(folder, family, torch.float32)
    return load(folder)


def load(folder: Path) -> TransformersEngine:
    return TransformersEngine(EngineOptions(str(folder), dtype="float32", threads=1, device="cpu"))


def likelihood(model: torch.nn.Module, prompt: Prompt = PROMPT) -> torch.Tensor:
    """Mean log-likelihood of the counted tokens, by transformers alone."""
    ids = torch.tensor([prompt.token_ids])
    logits = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    ((start, stop),) = prompt.counted
    return torch.stack([logits[t - 1, prompt.token_ids[t]] for t in range(start, stop)]).mean()


def plain(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
