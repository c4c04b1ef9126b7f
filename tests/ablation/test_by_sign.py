"""Silence by the sign of the gate, against plain hooks on transformers' own modules."""

from pathlib import Path

import numpy as np
import pytest
import torch
from plain_changes import edited, loss_of, plain_model
from tiny_models import save_tiny_model
from transformers_tools import load

from sparcom.ablation.how import parse_how
from sparcom.ablation.target import Target
from sparcom.ablation.transformers_ablator import TransformersAblator
from sparcom.components import ComponentSpace
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.changes import SilenceBySign

PROMPTS = [
    Prompt("a", tuple(range(3, 20)), ((9, 17),)),
    Prompt("b", tuple(range(40, 46)), ((4, 6),)),
    Prompt("c", tuple(range(30, 90, 2)), ((25, 30),)),
]


def some_of_every_site(space: ComponentSpace) -> np.ndarray:
    rng = np.random.default_rng(0)
    parts = [rng.choice(np.arange(s.start, s.stop), (s.stop - s.start) // 2, replace=False)
             for s in space.neuron_slices()]  # fmt: skip
    return np.sort(np.concatenate(parts))


def chosen_units(space: ComponentSpace, index: np.ndarray) -> dict[tuple, list[int]]:
    """(layer, kind, expert) -> units."""
    out: dict[tuple, list[int]] = {}
    for neuron in index.tolist():
        layer, kind, expert, unit = space.describe_neuron(neuron)
        out.setdefault((layer, kind, max(expert, 0)), []).append(unit)
    return out


@pytest.mark.parametrize("how", ["negative", "positive"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2_moe"])
def test_losses_equal_those_of_a_plain_hook(tmp_path: Path, family: str, how: str) -> None:
    folder = save_tiny_model(tmp_path, family, torch.float32)
    engine = load(folder, "float32", prove=False)
    ablator, index = TransformersAblator(engine, how), some_of_every_site(engine.space)
    units = chosen_units(engine.space, index)
    seen = set()

    def silence(layer, kind, expert, tokens, gate, h):
        seen.add(kind)
        chosen = torch.zeros(h.shape[1], dtype=torch.bool)
        chosen[units.get((layer, kind, expert), [])] = True
        wrong_sign = gate < 0 if how == "negative" else gate > 0
        return torch.where(chosen & wrong_sign, torch.zeros(()), h)

    model = plain_model(folder)
    with edited(model, silence):
        expected = [loss_of(model, p.token_ids, *p.counted[0]) for p in PROMPTS]
    whole = ablator.losses(PROMPTS)
    with ablator.ablated(Target("t", "neurons", index)):
        found = ablator.losses(PROMPTS)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert (np.abs(found - whole) > 1e-3).all()
    np.testing.assert_array_equal(ablator.losses(PROMPTS), whole)
    assert seen == set(engine.space.kinds)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2_moe"])
def test_what_both_leave_adds_up_to_h(tmp_path: Path, family: str) -> None:
    """h without its negative gates + h without its positive ones = h, bit for bit, site by site;
    and each is 0 where it should be. Whole experts are all their neurons."""
    engine = load(save_tiny_model(tmp_path, family, torch.float32), "bfloat16", prove=False)
    for site, part in zip(engine.space.sites, engine.space.neuron_slices(), strict=True):
        index = np.arange(part.start, part.stop)
        if site.experts:
            experts = np.unique(engine.space.neuron_experts[index])
            target = Target("t", "experts", experts)
        else:
            target = Target("t", "neurons", index)

        def traced(how: str | None, target=target, index=index) -> np.ndarray:
            values = []
            if how is None:
                for _, found in engine.trace(PROMPTS, index):
                    values += found
            else:
                with TransformersAblator(engine, how).ablated(target):
                    for _, found in engine.trace(PROMPTS, index):
                        values += found
            return np.concatenate(values)

        whole, negative, positive = (traced(how) for how in (None, "negative", "positive"))
        gate, h = whole[..., 0], whole[..., 2]
        np.testing.assert_array_equal(negative[..., 0], gate)
        np.testing.assert_array_equal(negative[..., 2] + positive[..., 2], h)
        assert not negative[..., 2][gate < 0].any()
        assert not positive[..., 2][gate > 0].any()
        np.testing.assert_array_equal(negative[..., 2][gate > 0], h[gate > 0])
        assert np.nanmax(np.abs(h)) > 0
        assert 0.2 < (gate[~np.isnan(gate)] > 0).mean() < 0.8


def test_a_gate_of_zero_has_no_sign_and_the_smallest_have_theirs() -> None:
    least = torch.finfo(torch.bfloat16).smallest_normal / 128
    gate = torch.tensor([[0.0, -0.0, least, -least, 3.0, -3.0, torch.inf]], dtype=torch.bfloat16)
    for sign, left in ((1, [1, 1, 0, 1, 0, 1, 0]), (-1, [1, 1, 1, 0, 1, 0, 1]), (0, [1] * 7)):
        h = torch.ones_like(gate)
        SilenceBySign(torch.full_like(gate, sign))(h, gate, None, None)
        assert h[0].tolist() == left


def test_their_words() -> None:
    (one,), (other,) = parse_how("negative"), parse_how("positive", "vllm")
    assert (one.name, one.sign, one.factor, one.amplifies) == ("negative", -1, None, False)
    assert (other.name, other.sign) == ("positive", 1)
