"""Signs of gate and up against hooks on the unmodified model, which reads each prompt alone."""

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_model
from transformers import AutoModelForCausalLM
from transformers_tools import load, make_prompts

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.errors import InputError

NEAR = 1e-4  # of 0: the sign of so small a number may differ between two orders of a sum


class PlainSigns:
    """The counts of up > 0 and of both > 0 that hooks see, and how many were too near to 0."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.rows = model, {}
        for name, module in model.named_modules():
            if not name.endswith((".mlp", ".shared_expert", ".experts")):
                continue
            if hasattr(module, "up_proj") and hasattr(module, "gate_proj"):
                kind = "1shared" if "shared" in name else "0dense"
                layer = int(name.split(".")[2])
                for part in ("gate_proj", "up_proj"):
                    getattr(module, part).register_forward_hook(self._keep((layer, kind), part))
            elif hasattr(module, "gate_up_proj"):
                layer = int(name.split(".")[2])
                module.register_forward_pre_hook(self._experts(layer))

    def _keep(self, key: tuple[int, str], part: str):
        def hook(module, args, output) -> None:
            self.rows.setdefault(key, {})[part] = output.reshape(-1, output.shape[-1])

        return hook

    def _experts(self, layer: int):
        def hook(module, args) -> None:
            hidden, ids = args[0].reshape(-1, args[0].shape[-1]), args[1]
            for expert, weight in enumerate(module.gate_up_proj):
                at = (ids == expert).any(-1)
                gate, up = (hidden @ weight.T).chunk(2, -1)
                nothing = torch.full_like(up, -1.0)  # rows of other experts count nowhere
                self.rows[layer, f"0routed{expert:03d}"] = {
                    "gate_proj": torch.where(at[:, None], gate, nothing),
                    "up_proj": torch.where(at[:, None], up, nothing),
                }

        return hook

    def count(self, prompt: Prompt) -> tuple[np.ndarray, np.ndarray]:
        """([2, neurons] counts, [neurons] how many numbers were near to 0)."""
        self.rows.clear()
        with torch.inference_mode():
            self.model(input_ids=torch.tensor([prompt.token_ids]))
        at = [t for start, stop in prompt.counted for t in range(start, stop)]
        signs, near = [], []
        for key in sorted(self.rows):
            gate, up = (self.rows[key][part][at] for part in ("gate_proj", "up_proj"))
            signs.append(torch.stack([(up > 0).sum(0), ((gate > 0) & (up > 0)).sum(0)]))
            near.append(((gate.abs() < NEAR) | (up.abs() < NEAR)).sum(0))
        return torch.cat(signs, 1).numpy(), torch.cat(near).numpy()


@pytest.mark.parametrize("family", ["llama", "phi3", "qwen2_moe", "mixtral"])
def test_signs_are_those_of_plain_hooks(tmp_path, family: str) -> None:
    folder = save_tiny_model(tmp_path, family, torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    if family == "phi3":  # gate and up in one: hooks need them apart
        for layer in plain.model.layers:
            split_merged(layer.mlp)
    hooks = PlainSigns(plain)
    engine = load(folder, "float32", signs=True, verify=True)
    prompts = make_prompts()
    rows = {n: c.signs[:, r] for c in engine.count(prompts) for r, n in enumerate(c.ids)}
    cells, differ = 0, 0
    for prompt in prompts:
        expected, near = hooks.count(prompt)
        assert rows[prompt.id].shape == expected.shape
        apart = np.abs(rows[prompt.id] - expected)
        assert (apart <= near).all()
        cells, differ = cells + apart.size, differ + int((apart > 0).sum())
        assert expected.any()
    assert differ <= 1e-3 * cells


def split_merged(mlp: torch.nn.Module) -> None:
    """Give an MLP with merged gate and up modules that compute them apart."""
    width = mlp.down_proj.in_features
    halves = mlp.gate_up_proj.weight[:width], mlp.gate_up_proj.weight[width:]
    for name, weight in zip(("gate_proj", "up_proj"), halves, strict=True):
        part = torch.nn.Linear(weight.shape[1], width, bias=False)
        part.weight = torch.nn.Parameter(weight.clone())
        setattr(mlp, name, part)

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        return mlp.down_proj(mlp.activation_fn(mlp.gate_proj(hidden)) * mlp.up_proj(hidden))

    mlp.forward = forward


def test_without_signs_there_are_none(tmp_path) -> None:
    engine = load(save_tiny_model(tmp_path, "llama", torch.float32), "float32")
    assert all(counted.signs is None for counted in engine.count(make_prompts()))


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_ffns_without_up_are_refused(tmp_path, family: str) -> None:
    folder = save_tiny_model(tmp_path, family, torch.float32)
    with pytest.raises(InputError, match="signs: the FFN has no up projection"):
        load(folder, "float32", signs=True)
