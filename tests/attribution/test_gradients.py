"""Attributions against autograd of unmodified transformers, and against finite differences."""

from pathlib import Path

import numpy as np
import pytest
import torch
from plain_attribution import IDS, PROMPT, engine_of, likelihood, load, plain

import outcomes
from sparcom.ablation.target import Target
from sparcom.ablation.transformers_ablator import TransformersAblator
from sparcom.attribution.gradients import Attributor
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.errors import InputError

FAMILIES = ["llama", "gpt2", "gemma2", "opt", "phi3", "gpt_neox",
            "qwen2_moe", "mixtral", "gpt_oss", "deepseek_v3"]  # fmt: skip


def by_weights(folder: Path, engine: TransformersEngine) -> np.ndarray:
    """[neurons] sum of w * dL/dw over the weights that read h: to scale them is to scale h."""
    model = plain(folder)
    likelihood(model).backward()
    parts = []
    for ffn in engine.ffns:
        fused = ffn.form in ("routed", "scaled")
        name = "experts.down_proj" if ffn.form == "scaled" else "down_proj"
        down = model.get_parameter(f"{ffn.name}.{name if fused else f'{ffn.parts[-1]}.weight'}")
        product = (down.detach() * down.grad).double()
        if fused:  # [experts, out, in], or turned round
            turned = ffn.form == "scaled" or ffn.module.is_transposed
            parts.append(product.sum(2 if turned else 1).reshape(-1))
        else:  # GPT-2 keeps its weights as [in, out]
            parts.append(product.sum(1 if product.shape[0] == ffn.site.width else 0))
    return torch.cat(parts).numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_times_activation_is_that_of_the_unmodified_model(
    tmp_path: Path, family: str
) -> None:
    engine = engine_of(tmp_path, family)
    found = Attributor(engine, "attribution")(PROMPT)
    expected = by_weights(tmp_path, engine)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("family", ["llama4_text", "jamba", "lfm2"])
def test_experts_that_weigh_their_input_and_layers_that_are_not_packed(
    tmp_path: Path, family: str
) -> None:
    outcomes.save_tiny(family, tmp_path)
    engine = load(tmp_path)
    found, expected = Attributor(engine, "attribution")(PROMPT), by_weights(tmp_path, engine)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_it_is_what_a_hook_of_ones_own_gives(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, "llama")
    found = Attributor(engine, "attribution")(PROMPT)
    model, kept = plain(tmp_path), []
    for layer in model.model.layers:
        layer.mlp.down_proj.register_forward_pre_hook(
            lambda _, given: (given[0].retain_grad(), kept.append(given[0]))[1]
        )
    likelihood(model).backward()
    by_hand = torch.cat([(h * h.grad)[0].sum(0) for h in kept]).detach().numpy()
    np.testing.assert_allclose(found, by_hand, rtol=1e-3, atol=1e-4 * np.abs(by_hand).max())


@pytest.mark.parametrize("family", ["llama", "qwen2_moe"])
def test_scaling_a_neuron_changes_the_likelihood_by_it(tmp_path: Path, family: str) -> None:
    engine, step = engine_of(tmp_path, family), 0.02
    found = Attributor(engine, "attribution")(PROMPT)
    ablator = TransformersAblator(engine, "scale:0")
    rng = np.random.default_rng(1)
    some = np.concatenate([np.argsort(-np.abs(found))[:6], rng.integers(len(found), size=6)])
    for neuron in some.tolist():
        target, losses = Target("one", "neurons", np.array([neuron])), []
        for factor in (1 + step, 1 - step):
            ablator._ablate(target.index, None, factor, 0)
            losses.append(ablator.losses([PROMPT])[0])
        ablator._ablate(np.zeros(0, np.int64), None, 0.0, 0)
        slope = (losses[1] - losses[0]) / (2 * step)
        assert slope == pytest.approx(found[neuron], rel=0.03, abs=3e-5)


def test_the_engine_is_left_as_it_was(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, "qwen2_moe")
    whole = Prompt("p", IDS, ((0, 17),))
    before = next(iter(engine.count([whole])))
    wanted = [p.requires_grad for p in engine.model.parameters()]
    for rule in ("attribution", "relp"):
        first, second = (Attributor(engine, rule)(PROMPT) for _ in range(2))
        np.testing.assert_array_equal(first, second)
    after = next(iter(engine.count([whole])))
    np.testing.assert_array_equal(before.neurons, after.neurons)
    assert [p.requires_grad for p in engine.model.parameters()] == wanted


def test_an_expert_that_no_token_reaches_has_none(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, "mixtral")
    few = Prompt("p", IDS[:3], ((2, 3),))
    read = next(iter(engine.count([Prompt("p", IDS[:3], ((0, 3),))]))).experts[0]
    found = Attributor(engine, "attribution")(few)
    by_expert = np.abs(found).reshape(len(read), -1).sum(1)
    assert (by_expert[read == 0] == 0).all()
    assert (read == 0).any()
    assert (by_expert[read > 0] > 0).any()


def test_what_is_refused(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, "llama")
    with pytest.raises(InputError, match="expected attribution, relp, got 'saliency'"):
        Attributor(engine, "saliency")
    with pytest.raises(InputError, match="instruction p: it has no answer"):
        Attributor(engine, "attribution")(Prompt("p", IDS, ()))
