"""RelP against layer-wise relevance propagation written out in NumPy, and its conservation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from plain_attribution import IDS, PROMPT, engine_of, plain

from sparcom.attribution.captured import keeping
from sparcom.attribution.gradients import Attributor
from sparcom.attribution.relevance import conserved, relevance
from sparcom.errors import InputError

CONSERVED = ["llama", "gpt2", "gemma2", "gemma3_text", "olmo2", "qwen3", "opt", "phi3", "gpt_neox",
             "qwen2_moe", "mixtral", "olmoe", "deepseek_v2", "deepseek_v3"]  # fmt: skip


def through(x: np.ndarray, weight: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """0-rule: the relevance of x [t, i] in z = x @ weight.T, weight [o, i], relevance [t, o]."""
    parts = x[:, None, :] * weight[None]
    return (parts * (relevance / parts.sum(2))[:, :, None]).sum(1)


def plain_lrp(folder: Path) -> np.ndarray:
    """[neurons] relevance of h in a Llama model, in float64, relevance after relevance."""
    model = plain(folder)
    with torch.no_grad():
        ids = torch.tensor([IDS])
        probabilities = [
            a[0].double().numpy() for a in model(ids, output_attentions=True).attentions
        ]
    w = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    config, eps = model.config, model.config.rms_norm_eps
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    silu = lambda g: g / (1 + np.exp(-g))  # noqa: E731

    def normed(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(1, keepdims=True) + eps) * w[name]

    x, layers = w["model.embed_tokens.weight"][list(IDS)], []
    for number, weights in enumerate(probabilities):
        at = f"model.layers.{number}."
        n1 = normed(x, f"{at}input_layernorm.weight")
        v = (n1 @ w[f"{at}self_attn.v_proj.weight"].T).reshape(len(IDS), groups, -1)
        v = v.repeat(heads // groups, 1)  # [s, heads, d]
        out = np.einsum("hts,shd->thd", weights, v)
        attended = out.reshape(len(IDS), -1) @ w[f"{at}self_attn.o_proj.weight"].T
        middle = x + attended
        n2 = normed(middle, f"{at}post_attention_layernorm.weight")
        gate, up = (n2 @ w[f"{at}mlp.{one}_proj.weight"].T for one in ("gate", "up"))
        h = silu(gate) * up
        added = h @ w[f"{at}mlp.down_proj.weight"].T
        layers.append((at, weights, x, n1, v, out, attended, middle, n2, h, added))
        x = middle + added
    last = normed(x, "model.norm.weight")
    logits = last @ w["lm_head.weight"].T
    softmax = np.exp(logits - logits.max(1, keepdims=True))
    softmax /= softmax.sum(1, keepdims=True)
    ((start, stop),) = PROMPT.counted
    r = np.zeros_like(logits)
    for t in range(start, stop):
        one_hot = np.arange(logits.shape[1]) == IDS[t]
        r[t - 1] = logits[t - 1] * (one_hot - softmax[t - 1]) / (stop - start)
    r = through(last, w["lm_head.weight"], r)
    found = []
    for at, weights, before, n1, v, out, attended, middle, n2, h, added in reversed(layers):
        whole = middle + added
        r_h = through(h, w[f"{at}mlp.down_proj.weight"], r * added / whole)
        found.append(r_h.sum(0))
        parts = [through(n2, w[f"{at}mlp.{one}_proj.weight"], r_h / 2) for one in ("gate", "up")]
        r = r * middle / whole + sum(parts)
        r_out = through(
            out.reshape(len(IDS), -1), w[f"{at}self_attn.o_proj.weight"], r * attended / middle
        ).reshape(out.shape)
        r_v = np.einsum("hts,shd,thd->shd", weights, v, r_out / out)
        r_v = r_v.reshape(len(IDS), groups, heads // groups, -1).sum(2).reshape(len(IDS), -1)
        r = r * before / middle + through(n1, w[f"{at}self_attn.v_proj.weight"], r_v)
    return np.concatenate(found[::-1])


def test_it_is_relevance_propagation_written_out(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, "llama")
    found = Attributor(engine, "relp")(PROMPT)
    expected = plain_lrp(tmp_path)
    gradient = Attributor(engine, "attribution")(PROMPT)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4 * scale)
    assert np.abs(gradient - expected).max() > 0.05 * scale  # another rule


def top_logit(engine):
    ids = torch.tensor([IDS])
    return lambda: engine.model(input_ids=ids, use_cache=False).logits[0, -1].max()


@pytest.mark.parametrize("family", CONSERVED)
def test_relevance_is_conserved(tmp_path: Path, family: str) -> None:
    engine = engine_of(tmp_path, family)
    engine.pack("one prompt at a time")
    with engine.instrumentation.taken_out(), keeping(engine.ffns, []):
        share = conserved(engine.model, engine.ffns, top_logit(engine))
    assert share == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "qwen2_moe"])
def test_the_forward_pass_changes_no_bit(tmp_path: Path, family: str) -> None:
    engine = engine_of(tmp_path, family)
    engine.pack("one prompt at a time")
    ids = torch.tensor([IDS])
    with engine.instrumentation.taken_out():
        before = engine.model(input_ids=ids, use_cache=False).logits
        with relevance(engine.ffns):
            after = engine.model(input_ids=ids, use_cache=False).logits
    assert torch.equal(before, after)


def test_a_model_with_a_part_without_a_rule_is_refused(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, "gpt_oss")  # 1 is added to up: relevance that goes nowhere
    with pytest.raises(InputError, match="its relevance is not conserved.*use --rule attribution"):
        Attributor(engine, "relp")(PROMPT)
