"""Every dense family: counts equal a plain hook on the same pass, and the model is unchanged."""

import numpy as np
import pytest
import torch
from tiny_models import DENSE, save_tiny_model
from torch import nn
from transformers import AutoModelForCausalLM
from transformers_tools import DTYPES, first_activations, load, make_prompts

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.packing import Pass, plan_passes
from sparcom.engines.transformers.engine import TransformersEngine

# Where the activation is computed in fp32 and rounded once by us, but step by step in the model's
# dtype by transformers (GPT-2's gelu_new): not the same bf16 number.
ROUNDS_IN_STEPS = {"gpt2"}


def gate_modules(engine: TransformersEngine) -> list[nn.Module]:
    """What puts out the gate of each site: an own walk, not the engine's."""
    names = ("gate_proj", "gate_up_proj", "c_fc", "dense_h_to_4h", "fc1")
    return [m for n, m in engine.model.named_modules() if n.rsplit(".", 1)[-1] in names]


def plain_counts(engine: TransformersEngine, prompts: list[Prompt]) -> np.ndarray:
    """Counts of every prompt by hooks that sum (gate > 0), on the engine's own passes."""
    counts = np.zeros((len(prompts), engine.space.neurons), np.int64)
    gates: list[torch.Tensor] = []
    hooks = [
        module.register_forward_hook(lambda m, i, out: gates.append(out.detach().clone()))
        for module in gate_modules(engine)
    ]
    plan = plan_passes([len(p.token_ids) for p in prompts], 64, 8)
    for one in plan:
        gates.clear()
        held = [prompts[i] for i in one.prompts]
        engine.forward(held, one)
        for site, gate in zip(engine.space.sites, gates, strict=True):
            rows = gate.reshape(one.rows, -1)[:, : site.width]
            start = 0
            columns = engine.space.neuron_slices()[engine.space.sites.index(site)]
            for at, prompt in zip(one.prompts, held, strict=True):
                for first, last in prompt.counted:
                    fired = (rows[start + first : start + last] > 0).sum(0)
                    counts[at, columns] += fired.numpy()
                start += len(prompt.token_ids)
    for hook in hooks:
        hook.remove()
    engine.recorder.discard()
    return counts


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", DENSE)
def test_counts_equal_a_plain_hook_on_the_same_pass(tmp_path, family: str, dtype: str) -> None:
    engine = load(save_tiny_model(tmp_path, family, DTYPES[dtype]), dtype, verify=True)
    prompts = make_prompts()
    counts = np.zeros((len(prompts), engine.space.neurons), np.int64)
    for counted in engine.count(prompts):
        for row, name in enumerate(counted.ids):
            counts[int(name[1:])] = counted.neurons[row]
            assert counted.tokens[row] == prompts[int(name[1:])].n_counted
    assert 0.2 < (counts > 0).mean() < 1.0
    np.testing.assert_array_equal(counts, plain_counts(engine, prompts))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", DENSE)
def test_the_model_computes_what_it_computes_without_counting(tmp_path, family, dtype) -> None:
    """Activations within one unit in the last place (fp32: four), nearly all equal; logits with
    what is left of that after three layers."""
    folder = save_tiny_model(tmp_path, family, DTYPES[dtype])
    prompts, one = make_prompts((20, 33, 7)), Pass((0, 1, 2), 64)
    counting, bare = load(folder, dtype), load(folder, dtype, count=False)
    if family not in ROUNDS_IN_STEPS or dtype == "float32":
        ours, plain = (first_activations(e, prompts) for e in (counting, bare))
        units = 4 if dtype == "float32" else 1
        # One unit in f can become nearly two in f * up; torch's own fp32 gelu is off by 1.2e-6
        # near 3.5, which the absolute part allows for.
        bound = 2 * units * torch.finfo(DTYPES[dtype]).eps * plain.abs() + 2e-6
        assert ((ours - plain).abs() <= bound).all()
        assert dtype == "float32" or (ours == plain).float().mean() > 0.99
    ours, plain = (e.forward(prompts, one, logits=True)[:60] for e in (counting, bare))
    tolerance = 1e-5 if dtype == "float32" else 0.1
    torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("family", DENSE)
def test_a_packed_pass_is_the_model_run_on_each_prompt_alone(tmp_path, family: str) -> None:
    """Windows, soft caps, positions and neighbours: all as in transformers' own eager attention."""
    folder = save_tiny_model(tmp_path, family, torch.float32)
    prompts = make_prompts((20, 33, 7, 1))
    packed = load(folder, "float32").forward(prompts, Pass((0, 1, 2, 3), 64), logits=True)
    plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    start = 0
    for prompt in prompts:
        with torch.inference_mode():
            alone = plain(input_ids=torch.tensor([prompt.token_ids])).logits[0]
        ours = packed[start : start + len(prompt.token_ids)]
        torch.testing.assert_close(ours, alone, rtol=1e-4, atol=1e-4)
        start += len(prompt.token_ids)


@pytest.mark.parametrize("dtype", DTYPES)
def test_counts_do_not_depend_on_neighbours_or_order(tmp_path, dtype: str) -> None:
    engine = load(save_tiny_model(tmp_path, "llama", DTYPES[dtype]), dtype)
    prompts = make_prompts()

    def all_counts(order: list[Prompt]) -> dict[str, bytes]:
        return {
            name: counted.neurons[row].tobytes()
            for counted in engine.count(order)
            for row, name in enumerate(counted.ids)
        }

    together = all_counts(prompts)
    assert all_counts(prompts[::-1]) == together
    alone = {}
    for prompt in prompts:
        alone |= all_counts([prompt])
    assert alone == together
