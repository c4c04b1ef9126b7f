"""Gate, up and h of every neuron at every token, by plain hooks on transformers' own modules."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from sparcom.components import ComponentSpace
from sparcom.corpus.prompts.prompts import Prompt

PARTS = {"dense": "mlp.", "shared": "mlp.shared_expert."}


@torch.inference_mode()
def plain_traces(
    folder: Path, prompts: Sequence[Prompt], space: ComponentSpace
) -> dict[str, np.ndarray]:
    """id -> [counted tokens, neurons, 3], in float32, each prompt alone; silu models with the
    names of Llama or Qwen2-MoE. NaN where a token was not routed to the neuron's expert."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    seen: dict[str, tuple] = {}
    for name, module in model.named_modules():
        if name.endswith(("gate_proj", "up_proj")):
            module.register_forward_hook(
                lambda m, given, out, name=name: seen.__setitem__(
                    name, out.reshape(-1, out.shape[-1])
                )
            )
        if name.endswith("mlp.experts"):
            module.register_forward_hook(
                lambda m, given, out, name=name: seen.__setitem__(name, (m, given[0], given[1]))
            )
    found = {}
    for prompt in prompts:
        seen.clear()
        model(torch.tensor([prompt.token_ids]))
        columns = []
        for site in space.sites:
            base = f"model.layers.{site.layer}."
            if site.experts:
                columns.append(_routed(site, *seen[base + "mlp.experts"]))
            else:
                part = base + PARTS[site.kind]
                columns.append(_values(seen[part + "gate_proj"], seen[part + "up_proj"]))
        whole = torch.cat(columns, 1).numpy()
        at = [p for start, stop in prompt.counted for p in range(start, stop)]
        found[prompt.id] = whole[at]
    return found


def _values(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return torch.stack([gate, up, F.silu(gate) * up], -1)


def _routed(site, experts, hidden: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    hidden = hidden.reshape(-1, hidden.shape[-1])
    out = torch.full((len(hidden), site.experts, site.width, 3), float("nan"))
    for token, row in enumerate(chosen.tolist()):
        for expert in row:
            gate, up = (experts.gate_up_proj[expert] @ hidden[token]).chunk(2)
            out[token, expert] = _values(gate, up)
    return out.reshape(len(hidden), -1, 3)
