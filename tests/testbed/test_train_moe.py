"""The test bed's training: what it writes can be counted, and its figures are right."""

import json
import math

import numpy as np
import pytest
import torch

from sparcom.corpus.opening import load_corpus
from sparcom.engines.base import EngineOptions
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.engines.transformers.loading import describe_model, load_config
from sparcom.errors import InputError
from sparcom.models import resolve_model
from sparcom.testbed import train_moe


def test_a_short_training_writes_a_model_that_counts(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SPARCOM_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"tiny-moe: .*python -m sparcom\.testbed\.train_moe"):
        resolve_model("tiny-moe")
    torch.set_num_threads(1)
    corpus = load_corpus("hexainst-ai", limit=5)
    out = tmp_path / "tiny-moe"
    figures = train_moe.train(corpus, out, steps=2, seed=0)
    assert len(figures.load_evenness) == 4
    assert 4 < figures.held_out_loss < 9
    assert sorted(p.suffix for p in out.iterdir()).count(".safetensors") == 1
    assert "chat_template" in json.dumps([p.name for p in out.iterdir()])
    options = EngineOptions(model=resolve_model("tiny-moe"), threads=1, device="cpu")
    assert describe_model(load_config(options)) == TransformersEngine(options).space
    assert not list(tmp_path.glob("*.tmp"))


def test_the_unigram_is_the_best_guess_without_context() -> None:
    ids = np.repeat(np.arange(4), 100_000)
    assert train_moe.unigram(ids, ids) == pytest.approx(math.log(4), abs=0.01)


def test_routing_figures_tell_uniform_from_chosen() -> None:
    uniform = [np.full((1, 4), 10), np.full((1, 4), 10)]
    assert train_moe.routing_figures(uniform, ["A", "B"]) == ([1.0], [0.5], [0.0])
    chosen = [np.array([[20, 20, 0, 0]]), np.array([[0, 0, 20, 20]])]
    assert train_moe.routing_figures(chosen, ["A", "B"]) == ([1.0], [0.5], [1.0])
    one = [np.array([[20, 20, 0, 0]])] * 2
    assert train_moe.routing_figures(one, ["A", "B"]) == ([0.5], [1.0], [0.0])
