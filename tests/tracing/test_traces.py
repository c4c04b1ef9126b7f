"""Traces equal plain hooks on the unmodified model, token for token, and add up to the counts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from plain_traces import plain_traces
from tiny_models import save_tiny_model
from transformers_tools import load, make_prompts

from sparcom.corpus.checking.show import Token
from sparcom.counting.recorder import Recorder
from sparcom.errors import CountError
from sparcom.tracing.traces import Traces, trace_prompts

LONG = (40, 1, 2, 7, 20, 33, 12)  # several passes of 64 rows


def traced(engine, prompts, index, **options) -> Traces:
    tokens = [
        tuple(
            Token(t, f"<{t}>", "text", any(a <= at < b for a, b in prompt.counted))
            for at, t in enumerate(prompt.token_ids)
        )
        for prompt in prompts
    ]
    return trace_prompts(engine, prompts, tokens, index, **options)


@pytest.mark.parametrize("family", ["llama", "qwen2_moe"])
def test_traces_equal_plain_hooks_token_for_token(tmp_path: Path, family: str) -> None:
    folder = save_tiny_model(tmp_path, family, torch.float32)
    engine = load(folder, "float32", prove=False)
    prompts = make_prompts(LONG)
    generator = np.random.default_rng(0)  # of every site, out of order
    parts = [generator.choice(np.arange(s.start, s.stop), 9, replace=False)
             for s in engine.space.neuron_slices()]  # fmt: skip
    index = generator.permutation(np.concatenate(parts))
    found = traced(engine, prompts, index)
    expected = plain_traces(folder, prompts, engine.space)
    for at, prompt in enumerate(prompts):
        plain = expected[prompt.id][:, index]
        np.testing.assert_allclose(found.values[at], plain, rtol=1e-4, atol=2e-5)
        sure = ~(np.abs(plain[:, :, 0]) < 1e-4)
        np.testing.assert_array_equal(found.fired[at][sure], (plain[:, :, 0] > 0)[sure])
    kinds = set(found.table()["kind"].to_pylist())
    assert kinds == ({"dense"} if family == "llama" else {"dense", "routed", "shared"})
    if family == "qwen2_moe":
        assert any(np.isnan(values).any() for values in found.values)


def test_tracing_changes_no_count_and_ends(tmp_path: Path) -> None:
    engine = load(save_tiny_model(tmp_path, "qwen2_moe", torch.float32), "bfloat16", prove=False)
    prompts = make_prompts(LONG)
    index = np.arange(0, engine.space.neurons, 7)

    def counts() -> dict[str, np.ndarray]:
        return {
            name: row
            for one in engine.count(prompts)
            for name, row in zip(one.ids, one.neurons, strict=True)
        }

    before = counts()
    found = traced(engine, prompts, index)
    for name, fired in zip(found.ids, found.fired, strict=True):
        np.testing.assert_array_equal(fired.sum(0), before[name][index])
    after = counts()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert engine.counting().trace is None


@pytest.mark.parametrize("changes", [{"threshold": 0.2}, {"signal": "product"}, {"verify": True}])
def test_a_unit_fires_as_it_is_counted(tmp_path: Path, changes: dict) -> None:
    engine = load(save_tiny_model(tmp_path, "llama", torch.float32), "bfloat16", prove=False,
                  **changes)  # fmt: skip
    prompts = make_prompts(LONG)
    given = {k: v for k, v in changes.items() if k != "verify"}
    found = traced(engine, prompts, np.arange(engine.space.neurons), **given)  # raises if not
    values = np.concatenate(found.values)
    gate, h = values[:, :, 0], values[:, :, 2]
    exact = (
        h
        if "signal" in changes
        else gate.astype(np.float64) / (1 + np.exp(-gate.astype(np.float64)))
    )
    np.testing.assert_array_equal(np.concatenate(found.fired), exact > changes.get("threshold", 0))


def test_an_ungated_ffn_has_no_up(tmp_path: Path) -> None:
    engine = load(save_tiny_model(tmp_path, "gpt2", torch.float32), "float32", prove=False)
    found = traced(engine, make_prompts((5, 9)), np.array([3, 60]))
    assert found.table()["up"].null_count == found.table().num_rows == 2 * (4 + 8)
    assert found.table()["gate"].null_count == 0


def test_a_trace_that_does_not_add_up_is_refused(tmp_path: Path, monkeypatch) -> None:
    engine = load(save_tiny_model(tmp_path, "llama", torch.float32), "float32", prove=False)
    take = Recorder.take

    def one_more(self, *given):
        counted = take(self, *given)
        counted.neurons[0, 5] += 1
        return counted

    monkeypatch.setattr(Recorder, "take", one_more)
    with pytest.raises(CountError, match=r"trace: 0:5 fires at \d+ tokens"):
        traced(engine, make_prompts((9,)), np.array([5]))


def test_the_table_and_the_text_say_where_it_fires() -> None:
    from sparcom.components import ComponentSpace, Site

    tokens = tuple(
        Token(i, text, "text", text != "<s>") for i, text in enumerate(["<s>", "a", "b", "c"])
    )
    values = np.array([[[1, 2, 3]], [[-1, 2, -3]], [[4, 5, 6]]], np.float32)
    found = Traces(
        space=ComponentSpace((Site("dense", 2, 4, "silu"),)), neurons=np.array([3]), ids=("x",),
        tokens=(tokens,), values=(values,), fired=(values[:, :, 0] > 0,),
    )  # fmt: skip
    assert found.render(0, 0) == "<s>⟦a⟧b⟦c⟧"
    assert found.names() == ["2:3"]
    rows = found.table().to_pylist()
    assert [row["position"] for row in rows] == [1, 2, 3]
    assert rows[1] == {
        "id": "x", "position": 2, "token_id": 2, "token": "b", "layer": 2, "kind": "dense",
        "expert": None, "unit": 3, "gate": -1.0, "up": 2.0, "h": -3.0, "fired": False,
    }  # fmt: skip
