"""h of another instruction, against plain hooks on transformers' own modules, unmodified."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_changes import edited, logits_of, loss_of, plain_model
from tiny_models import save_tiny_model
from transformers_tools import count_all, load

from sparcom.ablation import resample
from sparcom.ablation.options import AblationOptions
from sparcom.ablation.resample import Donors, donors_of, draw
from sparcom.ablation.target import Target
from sparcom.ablation.transformers_ablator import TransformersAblator
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.errors import InputError, SparcomError

PROMPTS = [
    Prompt("a", tuple(range(3, 20)), ((9, 17),), asked=9),
    Prompt("b", tuple(range(40, 46)), ((4, 6),), asked=4),
    Prompt("c", tuple(range(30, 90, 2)), ((25, 30),), asked=25),
]
DONORS = (
    Prompt("d", (50, 7, 61, 12, 9), ((3, 5),), asked=3),  # shorter than any of them
    Prompt("e", tuple(range(90, 60, -1)), ((0, 30),)),  # without an answer
)
OF = {"a": 0, "b": 1, "c": 0}


def give_to(name: str) -> int:
    return OF[name]


@contextmanager
def plain_resampled(model: Any, answer_at: int, donor: Prompt, chosen: set) -> Iterator[None]:
    """Within the block, h of chosen (layer, kind, expert, unit) is that of a donor."""
    kept: dict[tuple, torch.Tensor] = {}

    def keep(layer, kind, expert, tokens, gate, h):
        kept.update({(layer, kind, expert, t): row.clone()
                     for t, row in zip(tokens.tolist(), h, strict=True)})  # fmt: skip
        return h

    with edited(model, keep):
        logits_of(model, donor.token_ids)
    n = len(donor.token_ids)

    def give(layer, kind, expert, tokens, gate, h):
        units = [unit for *site, unit in chosen if tuple(site) == (layer, kind, expert)]
        out = h.clone()
        for row, token in enumerate(tokens.tolist()):
            first = (token - answer_at + (donor.asked or n)) % n
            order = ((layer, kind, expert, (first + k) % n) for k in range(n))
            known = next((kept[at] for at in order if at in kept), torch.zeros_like(h[0]))
            out[row, units] = known[units]
        return out

    with edited(model, give):
        yield


def half_of(space) -> tuple[np.ndarray, set]:
    """(half of the neurons of every site, the same as (layer, kind, expert, unit))."""
    rng = np.random.default_rng(0)
    parts = [rng.choice(np.arange(s.start, s.stop), (s.stop - s.start) // 2, replace=False)
             for s in space.neuron_slices()]  # fmt: skip
    index = np.sort(np.concatenate(parts))
    named = (space.describe_neuron(neuron) for neuron in index.tolist())
    return index, {(layer, kind, max(e, 0), unit) for layer, kind, e, unit in named}


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2_moe"])
def test_losses_equal_those_of_a_plain_hook(tmp_path: Path, family: str) -> None:
    folder = save_tiny_model(tmp_path, family, torch.float32)
    engine, model = load(folder, "float32", prove=False), plain_model(folder)
    index, chosen = half_of(engine.space)
    expected = []
    for prompt in PROMPTS:
        with plain_resampled(model, prompt.asked, DONORS[OF[prompt.id]], chosen):
            expected.append(loss_of(model, prompt.token_ids, *prompt.counted[0]))
    ablator = TransformersAblator(engine, "resample")
    whole = ablator.losses(PROMPTS)
    ablator.read_donors(Donors(DONORS, give_to), index)
    with ablator.ablated(Target("t", "neurons", index)):
        found = ablator.losses(PROMPTS)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert (np.abs(found - whole) > 1e-3).all()
    np.testing.assert_array_equal(ablator.losses(PROMPTS), whole)


@pytest.mark.parametrize("family", ["llama", "qwen2_moe"])
def test_answers_equal_those_of_a_plain_hook(tmp_path: Path, family: str) -> None:
    """Written with a KV cache, a token at a time; here every token is read again for each."""
    folder = save_tiny_model(tmp_path, family, torch.float32)
    engine, model = load(folder, "float32", prove=False), plain_model(folder)
    index, chosen = half_of(engine.space)
    asked = [Prompt(p.id, p.token_ids[: p.asked], ()) for p in PROMPTS]
    expected = {}
    for prompt in asked:
        ids = list(prompt.token_ids)
        with plain_resampled(model, len(ids), DONORS[OF[prompt.id]], chosen):
            for _ in range(9):
                ids.append(int(logits_of(model, ids)[-1].argmax()))
        answer = ids[len(prompt.token_ids) :]
        expected[prompt.id] = tuple(answer[: answer.index(2)] if 2 in answer else answer)
    ablator = TransformersAblator(engine, "resample")
    whole = ablator.write(asked, 9)
    ablator.read_donors(Donors(DONORS, give_to), index)
    with ablator.ablated(Target("t", "neurons", index)):
        assert ablator.write(asked, 9) == expected
    assert ablator.write(asked, 9) == whole != expected


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2_moe", "mixtral"])
def test_an_instruction_that_is_its_own_donor_changes_no_bit(tmp_path: Path, family: str) -> None:
    engine = load(save_tiny_model(tmp_path, family, torch.float32), "bfloat16", prove=False)
    ablator = TransformersAblator(engine, "resample")
    answers, counts = ablator.answers(PROMPTS), count_all(engine, PROMPTS)
    everything = np.arange(engine.space.neurons)
    donors = Donors(tuple(PROMPTS), [p.id for p in PROMPTS].index)
    ablator.read_donors(donors, everything)
    with ablator.ablated(Target("t", "neurons", everything)):
        for name, logits in ablator.answers(PROMPTS).items():
            assert torch.equal(logits, answers[name])
        again = count_all(engine, PROMPTS)
    np.testing.assert_array_equal(again.neurons, counts.neurons)
    np.testing.assert_array_equal(again.experts, counts.experts)
    others = Donors(tuple(PROMPTS), [p.id for p in reversed(PROMPTS)].index)
    ablator.read_donors(others, everything)
    with ablator.ablated(Target("t", "neurons", everything)):
        assert not torch.equal(ablator.answers(PROMPTS)["a"], answers["a"])


def test_donors_are_drawn_by_seed_from_other_categories() -> None:
    prompts = [Prompt(f"p{k}", (3, 4), ((0, 2),)) for k in range(30)]
    categories = [("MATH", "QA", "SUM")[k % 3] for k in range(30)]
    first = donors_of(prompts, categories, 0)
    drawn = {p.id: first.of(p.id) for p in prompts}
    assert all(categories[k] != categories[drawn[f"p{k}"]] for k in range(30))
    again = donors_of(prompts, categories, 0)
    assert {p.id: again.of(p.id) for p in reversed(prompts)} == drawn  # in any order
    other = donors_of(prompts, categories, 1)
    assert {p.id: other.of(p.id) for p in prompts} != drawn
    assert len({categories[first.of(f"text{k}")] for k in range(40)}) == 3  # of no category
    counts = np.bincount([draw(seed, "x", range(5)) for seed in range(500)], minlength=5)
    assert counts.min() > 60


def test_a_routed_neuron_takes_the_next_token_that_its_expert_got() -> None:
    rows = np.array([[-1, 0, -1], [1, -1, -1], [-1, 2, -1], [-1, -1, -1]])
    expected = [[1, 0, -1], [1, 2, -1], [1, 2, -1], [1, 0, -1]]
    assert resample._next_known(rows).tolist() == expected


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load(save_tiny_model(tmp_path, "llama", torch.float32), "float32", prove=False)
    ablator, target = TransformersAblator(engine, "resample"), Target("t", "neurons", np.arange(3))
    with pytest.raises(SparcomError, match=r"read_donors\(\) has not run"), ablator.ablated(target):
        pass
    monkeypatch.setattr(resample, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match="h of 35 tokens of donors takes .* take fewer or shorter"):
        ablator.read_donors(Donors(DONORS, give_to), target.index)
    with pytest.raises(InputError, match="how resample: on vLLM tokens cannot .* transformers"):
        AblationOptions(how="resample", engine="vllm")
