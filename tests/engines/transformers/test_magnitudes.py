"""Magnitudes against hooks on the unmodified model, which reads each prompt alone."""

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_model
from transformers import AutoModelForCausalLM
from transformers_tools import load, make_prompts

from outcomes import save_tiny
from sparcom.counting.magnitudes import EXPERTS, NEURONS
from sparcom.errors import InputError


class PlainMagnitudes:
    """h of every FFN and y of every expert, as the model's own modules compute them."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.h: dict[tuple[int, str], tuple[torch.Tensor, torch.Tensor]] = {}
        self.y: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        for name, module in model.named_modules():
            if name.endswith(("down_proj", "mlp.c_proj")):
                kind = "1shared" if "shared" in name else "0dense"
                layer = int(name.split(".")[2])
                module.register_forward_pre_hook(self._keep(layer, kind))
            elif hasattr(module, "gate_up_proj") and hasattr(module, "down_proj"):
                module.register_forward_pre_hook(self._experts(int(name.split(".")[2])))

    def _keep(self, layer: int, kind: str):
        def hook(module, args) -> None:
            h = args[0].reshape(-1, args[0].shape[-1])
            self.h[layer, kind] = h, torch.ones(len(h), dtype=torch.bool)

        return hook

    def _experts(self, layer: int):
        def hook(module, args) -> None:
            hidden, ids, weights = args[0].reshape(-1, args[0].shape[-1]), args[1], args[2]
            for expert, first in enumerate(module.gate_up_proj):
                gate, up = (hidden @ first.T).chunk(2, -1)
                h, chosen = torch.nn.functional.silu(gate) * up, ids == expert
                self.h[layer, f"0routed{expert:03d}"] = h, chosen.any(-1)
                y = h @ module.down_proj[expert].T
                self.y[layer, expert] = y, (weights * chosen).sum(-1), chosen.any(-1)

        return hook

    def of(self, at: list[int]) -> dict[str, np.ndarray]:
        """The magnitudes of the last prompt's counted tokens `at`."""
        neurons = {name: [] for name in NEURONS}
        for key in sorted(self.h):
            h, rows = (x[at] for x in self.h[key])
            h = h[rows].double()
            neurons["sums"].append(h.sum(0))
            neurons["absolutes"].append(h.abs().sum(0))
            least = torch.full((1, h.shape[1]), -torch.inf, dtype=torch.float64)
            neurons["largest"].append(torch.cat([least, h]).amax(0))
        experts = {name: [] for name in EXPERTS}
        for key in sorted(self.y):
            y, g, rows = (x[at] for x in self.y[key])
            norm, g = y[rows].double().pow(2).sum(-1).sqrt(), g[rows].double()
            for name, value in zip(EXPERTS, (g, norm, norm**2, g * norm), strict=True):
                experts[name].append(float(value.sum()))
        return {n: torch.cat(v).numpy() for n, v in neurons.items()} | {
            n: np.array(v) for n, v in experts.items()
        }


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2_moe"])
def test_magnitudes_are_those_of_plain_hooks(tmp_path, family: str) -> None:
    folder = save_tiny_model(tmp_path, family, torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    hooks = PlainMagnitudes(plain)
    engine = load(folder, "float32", magnitudes=True)
    prompts = {p.id: p for p in make_prompts()}
    for counted in engine.count(list(prompts.values())):
        for row, name in enumerate(counted.ids):
            with torch.inference_mode():
                plain(input_ids=torch.tensor([prompts[name].token_ids]))
            spans = prompts[name].counted
            expected = hooks.of([t for start, stop in spans for t in range(start, stop)])
            for what, values in expected.items():
                found = getattr(counted.magnitudes, what)[row]
                np.testing.assert_allclose(found, values, rtol=1e-4, atol=1e-4, err_msg=what)
            assert (expected["absolutes"] > 0).any()


def test_counts_beside_magnitudes_are_the_same(tmp_path) -> None:
    folder = save_tiny_model(tmp_path, "qwen2_moe", torch.bfloat16)
    plain, more = (load(folder, "bfloat16", magnitudes=m) for m in (False, True))
    for one, other in zip(plain.count(make_prompts()), more.count(make_prompts()), strict=True):
        assert one.ids == other.ids
        np.testing.assert_array_equal(one.neurons, other.neurons)
        np.testing.assert_array_equal(one.experts, other.experts)
        assert one.magnitudes is None


def test_experts_whose_input_is_weighted_are_refused(tmp_path) -> None:
    save_tiny("llama4_text", tmp_path)
    with pytest.raises(InputError, match=r"magnitudes: .* multiplies an expert's input"):
        load(tmp_path, "float32", magnitudes=True)
