"""A pass that is not the model's own does not pass, whatever is wrong with it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import DENSE, MOE, save_tiny_model, tiny_config
from transformers_tools import DTYPES, count_all, load, make_prompts

from sparcom.counting.recorder import Recorder
from sparcom.engines.experts.grouped import GroupedExperts
from sparcom.engines.transformers import attention
from sparcom.engines.transformers import engine as engine_module
from sparcom.engines.transformers.proof import prompts as proof_prompts
from sparcom.engines.transformers.proof.passes import orders
from sparcom.errors import InputError

FAMILIES = tuple(DENSE | MOE)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Callable[..., Path]:
    """Tiny models, each made once."""
    made: dict[str, Path] = {}

    def folder(family: str, dtype: str = "float32", **changes: object) -> Path:
        key = f"{family}-{dtype}-{sorted(changes.items())}"
        if key not in made:
            made[key] = save_tiny_model(
                tmp_path_factory.mktemp(family), family, getattr(torch, dtype), **changes
            )
        return made[key]

    return folder


# -- what is right --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_known_family_is_proved_packed(folders, family: str, dtype: str) -> None:
    engine = load(folders(family, dtype), dtype)
    assert engine.alone is None
    assert [s.site for s in engine.proof.sites] == [s.name for s in engine.space.sites]
    for site, proved in zip(engine.space.sites, engine.proof.sites, strict=True):
        assert proved.compared == 6 * site.neurons  # two prompts alone, and both in two orders
        assert proved.unexplained <= 1e-4 * proved.compared
        assert 0 <= proved.difference < proved.tolerance
        assert proved.differing <= (0.002 if dtype == "float32" else 0.2) * proved.compared


def test_orders_are_alone_packed_and_reversed() -> None:
    assert list(orders(2, True)) == [(0,), (1,), (0, 1), (1, 0)]
    assert list(orders(2, False)) == [(0,), (1,)]


def test_the_proof_leaves_the_engine_as_it_was(folders) -> None:
    """Its options, its windows, its buffers, and every count."""
    folder = folders("gemma2", sliding_window=40)
    options = {"threshold": 0.3, "signal": "product", "verify": True}
    proved, bare = (
        load(folder, "float32", **options),
        load(folder, "float32", prove=False, **options),
    )
    assert (proved.recorder.threshold, proved.recorder.signal) == (0.3, "product")
    assert proved.model.config.sliding_window == 40
    assert proved.model.config._attn_implementation == attention.NAME
    for buffer in (*proved.recorder._buffers.counts, *proved.recorder._buffers.rows):
        assert not buffer.any()
    prompts = make_prompts()
    assert (count_all(proved, prompts).neurons == count_all(bare, prompts).neurons).all()


def test_what_is_said_of_a_proof_is_json_and_the_same_each_time(folders) -> None:
    said = [load(folders("llama"), "float32").info.proof for _ in range(2)]
    assert said[0] == said[1] == json.loads(json.dumps(said[0]))
    assert said[0]["proved"] is True
    assert said[0]["passes"] == "packed"
    assert said[0]["prompts"] == [37, 13]
    assert "transformers' own modules" in said[0]["against"]


def test_without_a_proof_nothing_is_claimed(folders, monkeypatch) -> None:
    monkeypatch.setattr(engine_module, "prove", None)
    engine = load(folders("llama"), "float32", prove=False)
    assert engine.proof is None
    assert engine.info.proof == {"proved": False, "why": "--no-prove"}
    assert load(folders("llama"), "float32", count=False).info.proof["proved"] is False


def test_an_engine_of_one_slot_proves_prompts_alone(folders) -> None:
    engine = load(folders("llama"), "float32", slots=1)
    assert engine.proof.sites[0].compared == 2 * 56
    assert engine.alone is None


# -- attention that is not the model's ------------------------------------------------------------


def without_windows(batch_size, q_length, kv_length, **others) -> None:
    """As if every mask were causal."""


def test_prompts_that_see_their_neighbours_are_read_alone(folders, monkeypatch) -> None:
    """As if all rows of a pass were one prompt."""
    real = attention._Packing
    monkeypatch.setattr(attention, "_Packing", lambda s: real([(0, max(e for _, e in s))]))
    masks = attention.AttentionMaskInterface._global_mapping
    monkeypatch.setitem(masks, attention.NAME, without_windows)
    engine = load(folders("llama"), "float32")
    assert engine.alone == (
        "packed, its passes are not its own (model.layers.0.self_attn (LlamaAttention), of a "
        "prompt packed with another)"
    )
    assert engine.info.proof["proved"] is True
    assert engine.info.proof["passes"] == f"one prompt each, slower: {engine.alone}"


@pytest.mark.parametrize("window", [8, 100, 4096])
@pytest.mark.parametrize("family", ["mistral", "gemma2", "qwen2_moe"])
def test_a_window_that_is_left_out_shows_however_long_it_is(
    folders, monkeypatch, family: str, window: int
) -> None:
    """Long windows are shortened for the proof: its prompts are longer than any."""
    changes = {"use_sliding_window": True, "max_window_layers": 1} if family == "qwen2_moe" else {}
    folder = folders(family, sliding_window=window, **changes)
    masks = attention.AttentionMaskInterface._global_mapping
    monkeypatch.setitem(masks, attention.NAME, without_windows)
    engine = load(folder, "float32")
    assert "self_attn" in engine.alone
    monkeypatch.undo()
    right = load(folder, "float32")
    assert right.alone is None
    assert right.info.proof["shortened_windows"] == (
        {} if window == 8 else {"sliding_window": window}
    )


def test_another_scale_of_attention_shows_in_16_bits_too(folders, monkeypatch) -> None:
    real = attention._sdpa

    def scaled(q, k, v, mask, scaling, softcap, sinks):
        return real(q, k, v, mask, 1.5 * (scaling or q.shape[3] ** -0.5), softcap, sinks)

    monkeypatch.setattr(attention, "_sdpa", scaled)
    engine = load(folders("llama", "bfloat16"), "bfloat16")
    assert "layers.0.self_attn (LlamaAttention), of a prompt alone" in engine.alone


# -- counts and FFNs that are not the model's -----------------------------------------------------


def off_by_one(self, site, gate, up, real=Recorder.count):
    out = real(self, site, gate, up)
    if site == 1:
        self._buffers.counts[1][:, ::7] = self._buffers.counts[1][:, ::7].clamp(min=1) - 1
    return out


def of_up(self, site, gate, up, real=Recorder.count):
    """Counts the sign of the wrong half; the output stays right."""
    real(self, site, up.contiguous(), gate.contiguous())
    return torch.nn.functional.silu(gate) * up


@pytest.mark.parametrize("fault", [off_by_one, of_up])
@pytest.mark.parametrize("dtype", DTYPES)
def test_counts_that_are_wrong_are_told_from_rounding(folders, monkeypatch, fault, dtype) -> None:
    monkeypatch.setattr(Recorder, "count", fault)
    with pytest.raises(
        InputError, match=r"\.mlp \(LlamaMLP\): \d+ of \d+ counts differ from trans"
    ):
        load(folders("llama", dtype), dtype)


def test_experts_in_another_order_are_caught(folders, monkeypatch) -> None:
    real = GroupedExperts.__init__

    def swapped(self, first, down, *args, **kwargs):
        real(self, first, down.flip(0), *args, **kwargs)

    monkeypatch.setattr(GroupedExperts, "__init__", swapped)
    with pytest.raises(
        InputError, match=r"layers\.0\.mlp \(Qwen3MoeSparseMoeBlock\), .* its output"
    ):
        load(folders("qwen3_moe"), "float32")


def test_an_error_names_the_model_and_what_to_try(folders, monkeypatch) -> None:
    monkeypatch.setattr(Recorder, "count", of_up)
    message = (
        r"^model \S+: what would be counted is not the model's own pass: .*; try --engine vllm$"
    )
    with pytest.raises(InputError, match=message):
        load(folders("llama"), "float32")


# -- numbers that are not finite ------------------------------------------------------------------


def changed(folder: Path, target: Path, name: str, change) -> Path:
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = change(tensors[name])
    target.mkdir()
    (target / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_one_weight_that_is_not_a_number_refuses_the_model(folders, tmp_path) -> None:
    def one_nan(weight: torch.Tensor) -> torch.Tensor:
        weight[3, 5] = float("nan")
        return weight

    name = "model.layers.1.mlp.down_proj.weight"
    folder = changed(folders("llama"), tmp_path / "m", name, one_nan)
    with pytest.raises(InputError, match=r"its hidden states are not finite in float32, first at "
                       r"model\.layers\.1\.mlp; its weights may be damaged"):  # fmt: skip
        load(folder, "float32")


def test_a_model_that_overflows_in_float16_says_which_dtype_to_use(folders, tmp_path) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    folder = changed(folders("llama"), tmp_path / "m", name, lambda weight: weight * 3e4)
    with pytest.raises(InputError, match=r"not finite in float16, .*; use bfloat16 or float32"):
        load(folder, "float16")
    assert load(folder, "bfloat16").proof is not None


# -- prompts --------------------------------------------------------------------------------------


def test_prompts_are_the_same_each_time_and_hold_no_special_token() -> None:
    config = tiny_config("llama", eos_token_id=[2, 7])
    first, second = (proof_prompts.make_prompts(config, 96) for _ in range(2))
    assert first == second
    drawn = {i for prompt in first for i in prompt.token_ids}
    assert not drawn & {0, 1, 2, 7}
    assert max(drawn) < 96
    assert [len(p.token_ids) for p in first] == [37, 13] == [p.n_counted for p in first]


def test_windows_come_back_even_after_an_error(folders) -> None:
    model = load(folders("mistral", sliding_window=64), "float32", count=False).model

    def fail() -> None:
        with proof_prompts.short_windows(model) as windows:
            assert windows == {"sliding_window": 64}
            assert model.config.sliding_window == 24
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert model.config.sliding_window == 64
