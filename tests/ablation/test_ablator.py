"""Ablators: exact on edited weights, undone afterwards, and losses against plain torch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_model
from transformers import AutoModelForCausalLM

from sparcom.ablation.options import AblationOptions
from sparcom.ablation.target import Target
from sparcom.ablation.transformers_ablator import TransformersAblator
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.base import EngineOptions
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.errors import InputError, SparcomError

PROMPTS = [
    Prompt("a", tuple(range(3, 20)), ((9, 17),)),
    Prompt("b", tuple(range(40, 46)), ((4, 6),)),
    Prompt("c", tuple(range(30, 90, 2)), ((25, 30),)),
]
WORDS = (
    r"expected zero, mean, scale:X\[,Y...\], negative, positive, resample, route, "
    r"boost:X\[,Y...\], got"
)


def engine_of(tmp_path: Path, family: str) -> TransformersEngine:
    folder = save_tiny_model(tmp_path / family, family, torch.float32)
    options = EngineOptions(str(folder), dtype="float32", batch_tokens=64, slots=4, threads=1)
    return TransformersEngine(options)


def plain_logits(model: torch.nn.Module) -> list[torch.Tensor]:
    """[counted, vocabulary] of each prompt, by transformers alone."""
    out = []
    for prompt in PROMPTS:
        with torch.inference_mode():
            logits = model(torch.tensor([prompt.token_ids])).logits[0]
        ((a, b),) = prompt.counted
        out.append(logits[a - 1 : b - 1])
    return out


def plain_losses(model: torch.nn.Module) -> np.ndarray:
    """Losses by transformers alone, one prompt at a time."""
    out = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt.token_ids])
        with torch.inference_mode():
            scores = model(ids).logits[0].log_softmax(-1)
        ((a, b),) = prompt.counted
        out.append(-np.mean([float(scores[t - 1, ids[0, t]]) for t in range(a, b)]))
    return np.array(out)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2_moe"])
def test_ablated_neurons_equal_zeroed_weights(tmp_path: Path, family: str) -> None:
    engine = engine_of(tmp_path, family)
    ablator = TransformersAblator(engine)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / family, dtype=torch.float32)
    whole = ablator.losses(PROMPTS)
    np.testing.assert_allclose(whole, plain_losses(model), rtol=1e-4)
    down = {
        "llama": lambda: model.model.layers[1].mlp.down_proj.weight[:, :7],
        "gpt2": lambda: model.transformer.h[1].mlp.c_proj.weight[:7],
        "qwen2_moe": lambda: model.model.layers[1].mlp.experts.down_proj[2, :, :7],
    }[family]
    at = next(i for i, s in enumerate(engine.space.sites) if s.layer == 1 and s.kind != "shared")
    site, start = engine.space.sites[at], int(engine.space.neuron_offsets[at])
    first = start + (2 * site.width if site.experts else 0)
    with torch.no_grad():
        down().zero_()
    with ablator.ablated(Target("t", "neurons", np.arange(first, first + 7))):
        ablated = ablator.losses(PROMPTS)
    np.testing.assert_allclose(ablated, plain_losses(model), rtol=1e-4)
    assert (ablated != whole).any()
    np.testing.assert_array_equal(ablator.losses(PROMPTS), whole)


def doubled(model: torch.nn.Module, family: str, factor: float) -> None:
    """Scale the first seven columns of a down projection: the same as scaling h there."""
    down = {
        "llama": lambda: model.model.layers[1].mlp.down_proj.weight[:, :7],
        "qwen2_moe": lambda: model.model.layers[1].mlp.experts.down_proj[2, :, :7],
    }[family]
    with torch.no_grad():
        down().mul_(factor)


@pytest.mark.parametrize("factor", [0.0, 0.5, -1.0, 2.0])
@pytest.mark.parametrize("family", ["llama", "qwen2_moe"])
def test_scaled_neurons_equal_scaled_weights(tmp_path: Path, family: str, factor: float) -> None:
    engine = engine_of(tmp_path, family)
    ablator = TransformersAblator(engine, f"scale:{factor}")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / family, dtype=torch.float32)
    whole = ablator.losses(PROMPTS)
    doubled(model, family, factor)
    at = next(i for i, s in enumerate(engine.space.sites) if s.layer == 1 and s.kind != "shared")
    site, start = engine.space.sites[at], int(engine.space.neuron_offsets[at])
    first = start + (2 * site.width if site.experts else 0)
    with ablator.ablated(Target("t", "neurons", np.arange(first, first + 7))):
        found = ablator.losses(PROMPTS)
    np.testing.assert_allclose(found, plain_losses(model), rtol=1e-4)
    assert (found != whole).any()
    np.testing.assert_array_equal(ablator.losses(PROMPTS), whole)


@pytest.mark.parametrize("family", ["llama", "qwen2_moe"])
def test_scaling_by_one_changes_no_bit(tmp_path: Path, family: str) -> None:
    folder = save_tiny_model(tmp_path / family, family, torch.bfloat16)
    engine = TransformersEngine(EngineOptions(str(folder), batch_tokens=64, slots=4, threads=1))
    ablator = TransformersAblator(engine, "scale:1")
    whole, answers = ablator.losses(PROMPTS), ablator.answers(PROMPTS)
    everything = [Target("all", "neurons", np.arange(engine.space.neurons))]
    if engine.space.experts:
        everything.append(Target("all", "experts", np.arange(engine.space.experts)))
    for target in everything:
        with ablator.ablated(target):
            np.testing.assert_array_equal(ablator.losses(PROMPTS), whole)
            for name, logits in ablator.answers(PROMPTS).items():
                assert torch.equal(logits, answers[name])


def test_kl_and_changed_tokens(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, "llama")
    ablator = TransformersAblator(engine)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "llama", dtype=torch.float32)
    answers = ablator.answers(PROMPTS)
    again = ablator.scores(PROMPTS, answers)
    np.testing.assert_allclose(again.kl, 0, atol=1e-6)
    assert again.changed.tolist() == [0, 0, 0]
    assert np.isnan(ablator.scores(PROMPTS).kl).all()
    whole = plain_logits(model)
    assert ablator.bytes_of_answers(PROMPTS) == 4 * sum(part.numel() for part in whole)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[:, :30] = 0
    with ablator.ablated(Target("t", "neurons", np.arange(30))):
        found = ablator.scores(PROMPTS, answers)
    p, q = (
        [logits.double().softmax(-1) for logits in some] for some in (whole, plain_logits(model))
    )
    kl = [float((a * (a / b).log()).sum(-1).mean()) for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(found.kl, kl, rtol=1e-3)
    changed = [
        float((a.argmax(-1) != b.argmax(-1)).double().mean()) for a, b in zip(p, q, strict=True)
    ]
    np.testing.assert_allclose(found.changed, changed, atol=1e-7)
    assert found.changed.max() > 0


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2_moe", "gemma2", "gpt_neox"])
def test_layers_before_the_first_ablated_one_are_not_computed_again(tmp_path, family) -> None:
    engine = engine_of(tmp_path, family)
    ablator = TransformersAblator(engine)
    start = int(np.searchsorted(engine.space.neuron_layers, 2))
    target = Target("t", "neurons", np.arange(start, start + 9))
    assert ablator.first_layer(target) == 2
    prefix = ablator.prefix(2, PROMPTS)
    answers = ablator.answers(PROMPTS)
    with ablator.ablated(target):
        straight = ablator.scores(PROMPTS, answers)
        ran = []
        hooks = [
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
            for name, module in engine.model.named_modules()
            if "attn" in name.rpartition(".")[2] or name.endswith("attention")
        ]
        short = ablator.scores(PROMPTS, answers, prefix)
        for hook in hooks:
            hook.remove()
    assert {name.split(".")[2] for name in ran} == {"2"}
    for name in ("loss", "kl", "changed"):
        np.testing.assert_array_equal(getattr(short, name), getattr(straight, name))
    assert ablator.scores(PROMPTS, answers).kl.max() < 1e-6  # all layers are computed again
    assert ablator.prefix(0, PROMPTS) is None


def test_a_model_that_cannot_be_continued_is_computed_whole(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, "llama")
    ablator, layers = TransformersAblator(engine), engine.model.model.layers
    assert ablator.prefix(1, PROMPTS) is not None
    left = [0]  # what the first layer leaves beside its output, and the last one takes
    layers[0].mlp.register_forward_hook(lambda *_: left.append(1))
    layers[2].mlp.register_forward_hook(lambda _, __, out: out * left.pop())
    assert ablator.prefix(1, PROMPTS) is None


def test_the_mean_fills_what_calibration_saw(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, "llama")
    ablator = TransformersAblator(engine, "mean")
    target = Target("t", "neurons", np.arange(5))
    with pytest.raises(SparcomError, match="calibrate"), ablator.ablated(target):
        pass
    seen = []
    hook = engine.model.model.layers[0].mlp.down_proj.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].reshape(-1, inputs[0].shape[-1]).clone())
    )
    one = [Prompt("all", PROMPTS[0].token_ids, ((0, 17),))]
    means = ablator.calibrate(one)
    np.testing.assert_allclose(means[:56], seen[0][:17].double().mean(0), rtol=1e-5)
    with ablator.ablated(target):
        ablator.losses(one)
    hook.remove()
    expected = torch.from_numpy(means[:5]).float().expand(17, 5)
    torch.testing.assert_close(seen[1][:17, :5], expected)


@pytest.mark.parametrize("family", ["qwen2_moe", "mixtral", "qwen3_moe"])
def test_routing_around_experts(tmp_path: Path, family: str) -> None:
    engine = engine_of(tmp_path, family)
    ablator, around = TransformersAblator(engine, "zero"), TransformersAblator(engine, "route")
    whole = around.losses(PROMPTS)
    target = Target("t", "experts", np.array([0, 3]))
    with around.ablated(target):
        counted = next(engine.count(PROMPTS))
        routed = around.losses(PROMPTS)
    assert counted.experts[:, [0, 3]].sum() == 0
    assert counted.experts[:, :6].sum() > 0
    assert (next(engine.count(PROMPTS)).experts[:, [0, 3]] > 0).any()
    np.testing.assert_array_equal(around.losses(PROMPTS), whole)
    with ablator.ablated(target):
        zeroed = ablator.losses(PROMPTS)
    assert (zeroed != routed).any()
    assert (zeroed != whole).any()


def test_a_router_that_still_chooses_a_closed_expert_is_refused(tmp_path: Path) -> None:
    """DeepSeek-V3 takes the best of score + bias: an expert of score 0 may be among them."""
    engine = engine_of(tmp_path, "deepseek_v3")
    ablator, target = TransformersAblator(engine, "route"), Target("t", "experts", np.array([0]))
    with ablator.ablated(target):
        assert next(engine.count(PROMPTS)).experts[:, 0].sum() == 0
    engine.model.model.layers[1].mlp.gate.e_score_correction_bias[0] = 2
    refused = r"router of layer1.routed \(DeepseekV3TopkRouter\) cannot be routed around; .*zero"
    with pytest.raises(SparcomError, match=refused), ablator.ablated(target):
        ablator.losses(PROMPTS)


def test_what_is_refused(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, "qwen2_moe")
    with pytest.raises(InputError, match=f"{WORDS} 'off'"):
        TransformersAblator(engine, "off")
    with (
        pytest.raises(InputError, match="each token takes 2: 5 cannot be routed around"),
        TransformersAblator(engine, "route").ablated(Target("t", "experts", np.arange(5))),
    ):
        pass


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("scale", f"{WORDS} 'scale'"),
        ("zero:1", "got 'zero:1'"),
        ("scale:", "expected numbers as in scale:0,0.5,2, got 'scale:'"),
        ("scale:1,nan", "expected numbers as in"),
        ("scale:1,inf", "expected numbers as in"),
        ("scale:2,2.0", "a number comes twice"),
    ],
)
def test_words_that_name_no_way(how: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AblationOptions(how=how)


@pytest.mark.parametrize("family", ["qwen2_moe", "mixtral", "qwen3_moe"])
def test_boosted_experts_equal_a_bias_in_the_router(tmp_path: Path, family: str) -> None:
    """Against transformers, unmodified, whose linear adds a bias for one router's weight."""
    engine = engine_of(tmp_path, family)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / family, dtype=torch.float32)
    target, shift = Target("t", "experts", np.array([0, 3])), torch.tensor([1.5, 0, 0, 1.5, 0, 0])
    whole = TransformersAblator(engine).losses(PROMPTS)
    before = next(engine.count(PROMPTS)).experts[:, [0, 3]].sum()
    with TransformersAblator(engine, "boost:1.5").ablated(target):
        boosted = TransformersAblator(engine).losses(PROMPTS)
        after = next(engine.count(PROMPTS)).experts[:, [0, 3]].sum()
    layer = next(site.layer for site in engine.space.sites if site.experts)
    router = model.model.layers[layer].mlp.gate
    linear = torch.nn.functional.linear

    def biased(x, weight, bias=None):
        out = linear(x, weight, bias)
        return out + shift if weight is router.weight else out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "linear", biased)
        expected = plain_losses(model)
    np.testing.assert_allclose(boosted, expected, rtol=1e-4)
    assert after > before
    assert (boosted != whole).any()
    np.testing.assert_array_equal(TransformersAblator(engine).losses(PROMPTS), whole)
    neurons = Target("t", "neurons", np.array([0]))
    with (
        pytest.raises(InputError, match="only experts have a router, for --how boost:1.5"),
        TransformersAblator(engine, "boost:1.5").ablated(neurons),
    ):
        pass
