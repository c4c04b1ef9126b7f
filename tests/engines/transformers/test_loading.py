"""From a folder to a loaded model: every refusal is one line, comes early, and asks nothing."""

import builtins
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import save_tiny_model
from transformers_tools import count_all, load, make_prompts

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.base import EngineOptions, PromptError
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.engines.transformers.loading import load_config, read_model
from sparcom.errors import InputError

CODE = """
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM


class OwnConfig(LlamaConfig):
    model_type = "own"


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


# -- code that comes with a model -----------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A llama that comes as code of its own; who asks the user fails the test."""

    def ask(*_: object) -> None:
        raise AssertionError("nobody may be asked")

    monkeypatch.setattr(builtins, "input", ask)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = save_tiny_model(tmp_path / "own-model", "llama", torch.float32)
    (folder / "own_code.py").write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own_code.OwnConfig",
                     "AutoModelForCausalLM": "own_code.OwnForCausalLM"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("read", [load_config, read_model, TransformersEngine])
def test_code_of_a_model_is_refused_without_a_question(own: Path, read: Callable) -> None:
    message = r"^model \S+: its config .* code of its own; read it, then give --trust-remote-code$"
    with pytest.raises(InputError, match=message):
        read(EngineOptions(str(own), dtype="float32"))


def test_code_of_a_model_runs_where_it_is_trusted(own: Path, tmp_path: Path) -> None:
    """While planning as well as when loading."""
    assert read_model(EngineOptions(str(own), dtype="float32", trust_remote_code=True)).head
    engine = load(own, "float32", trust_remote_code=True)
    assert type(engine.model).__name__ == "OwnForCausalLM"
    plain = load(save_tiny_model(tmp_path / "plain", "llama", torch.float32), "float32")
    prompts = make_prompts()
    assert (count_all(engine, prompts).neurons == count_all(plain, prompts).neurons).all()


# -- configs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    ["null", "[]", "NaN", '{"model_type": 3}', '{"model_type": "no-such-model"}', "{}", "{",
     '{"model_type": "llama", "hidden_size": "x"}', '{"model_type": "llama", "hidden_size": -8}',
     '{"model_type": "llama", "num_attention_heads": 0}',
     '{"model_type": "llama", "hidden_act": "nothing"}',
     '{"model_type": "llama", "vocab_size": null}',
     '{"model_type": "llama", "num_hidden_layers": 0}'],
)  # fmt: skip
def test_a_config_that_says_no_model_is_refused_in_one_line(tmp_path: Path, config: str) -> None:
    folder = save_tiny_model(tmp_path, "llama", torch.float32)
    (folder / "config.json").write_text(config)
    for read in (read_model, TransformersEngine):
        with pytest.raises(InputError) as caught:
            read(EngineOptions(str(folder), dtype="float32"))
        text = str(caught.value)
        assert text.startswith("model ")
        assert "\n" not in text
        assert len(text) < 700


def test_a_dtype_that_is_none_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dtype: expected bfloat16, float16, float32 or auto, got"):
        load_config(EngineOptions(str(tmp_path), dtype="int8"))


# -- token ids ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wrong", "named"), [(96, 96), (1 << 40, 1 << 40), (-1, -1)])
def test_token_ids_beyond_the_embedding_are_refused(tmp_path: Path, wrong: int, named: int) -> None:
    """While planning and by the engine, before a pass."""
    folder = save_tiny_model(tmp_path, "llama", torch.float32)
    prompts = [*make_prompts((5, 9)), Prompt("odd", (3, wrong, 4), ((0, 3),))]
    message = (
        rf"instruction odd has the token id {named}, but the model's embedding has 96 rows; the "
        "tokenizer is another model's, or tokens were added to it"
    )
    facts = read_model(EngineOptions(str(folder), dtype="float32"))
    assert facts.vocabulary == 96
    facts.check_prompts(prompts[:2])
    with pytest.raises(InputError, match=message):
        facts.check_prompts(prompts)
    engine = load(folder, "float32", prove=False)
    with pytest.raises(InputError, match=message):
        next(engine.count(prompts))
    count_all(engine, prompts[:2])


# -- passes that are not finite -------------------------------------------------------------------


def test_an_instruction_that_is_not_finite_is_named_and_the_others_are_not(tmp_path: Path) -> None:
    """One token's embedding is damaged; a proof may not meet it."""
    folder = save_tiny_model(tmp_path, "llama", torch.float32)
    engine = load(folder, "float32")
    with torch.no_grad():
        engine.model.get_input_embeddings().weight[7] = float("nan")
    good = [p for p in make_prompts((5, 20, 12, 33)) if 7 not in p.token_ids]
    bad = [Prompt("bad", (3, 4, 7, 5), ((0, 4),)), Prompt("worse", (9, 7), ((1, 2),))]
    assert len(good) >= 2
    with pytest.raises(PromptError) as caught:
        list(engine.count([*good, *bad]))
    assert set(caught.value.ids) == {"bad", "worse"}
    assert caught.value.reason == (
        "its hidden states are not finite in float32; its weights may be damaged"
    )
    assert count_all(engine, good).neurons.any()  # the engine counts on


def test_rows_that_are_not_counted_need_not_be_finite(tmp_path: Path) -> None:
    """The fillers behind the prompts are token 0."""
    engine = load(save_tiny_model(tmp_path, "llama", torch.float32), "float32")
    with torch.no_grad():
        engine.model.get_input_embeddings().weight[0] = float("nan")
    count_all(engine, make_prompts((5, 20)))


def test_float16_is_told_to_be_another_dtype(tmp_path: Path) -> None:
    engine = load(save_tiny_model(tmp_path, "llama", torch.float16), "float16")
    with torch.no_grad():
        engine.model.model.layers[1].mlp.down_proj.weight *= 1e5
    with pytest.raises(PromptError, match="not finite in float16; use bfloat16 or float32"):
        list(engine.count(make_prompts((5,))))
