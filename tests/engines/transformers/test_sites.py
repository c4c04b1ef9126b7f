"""FFNs are recognised by their parts, and what only looks like one is refused."""

import types
from pathlib import Path

import pytest
import torch
from tiny_models import DENSE, save_tiny_model, tiny_config
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.models.gpt2 import modeling_gpt2
from transformers.models.llama import modeling_llama
from transformers.models.phi3 import modeling_phi3

from sparcom.counting.recorder import Recorder
from sparcom.engines.base import EngineOptions
from sparcom.engines.transformers import sites
from sparcom.engines.transformers.accounting import check_accounted
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.engines.transformers.loading import describe_model
from sparcom.errors import InputError

SMALL = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def small(family: str, **changes: object) -> PreTrainedConfig:
    """The config of a small model of any family that transformers knows."""
    return AutoConfig.for_model(family, **{**SMALL, **changes})


def config_only(folder: Path, config: PreTrainedConfig) -> EngineOptions:
    """A folder that holds a config and no weight: to open one would be another error."""
    config.save_pretrained(folder)
    return EngineOptions(str(folder), dtype="float32", threads=1, device="cpu")


# -- what is refused, before a weight is read -----------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            small("jetmoe", num_local_experts=4),
            r"layers\.0\..*\(JetMoeParallelExperts\).*experts interface",
        ),
        (small("llama", hidden_act="tanh"), r"layers\.0\.mlp \(LlamaMLP\).*activation Tanh"),
        (small("llama", hidden_act="quick_gelu"), r"activation QuickGELUActivation"),
        (
            tiny_config("gpt2", activation_function="tanh"),
            r"h\.0\.mlp \(GPT2MLP\).*activation Tanh",
        ),
        (small("mamba"), r"model MambaForCausalLM"),
        (small("bert", is_decoder=True), r"BertLMHeadModel"),
        (small("t5"), r"it cannot be built from its config: .*T5Config"),
        (
            small("gemma3n_text"),
            r"model .*: it cannot be built from its config: .*(not in list|layer types)",
        ),
    ],
    ids=lambda v: getattr(v, "model_type", ""),
)
def test_a_model_that_is_not_supported_is_refused_before_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: PreTrainedConfig, message: str
) -> None:
    options = config_only(tmp_path, config)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    with pytest.raises(InputError, match=message) as caught:
        TransformersEngine(options)
    assert "\n" not in str(caught.value)


def test_a_refusal_names_the_module_and_what_is_supported() -> None:
    with pytest.raises(InputError) as caught:
        describe_model(small("llama", hidden_act="tanh"))
    for word in ("gate_proj/up_proj/down_proj", "c_fc/c_proj", "routed experts", "gelu_tanh"):
        assert word in str(caught.value)


class Block(nn.Module):
    """A decoder layer of which only the parts given are there."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def model_of(*blocks: nn.Module) -> nn.Module:
    model = nn.Module()
    model.layers = nn.ModuleList(blocks)
    return model


def test_experts_in_a_list_are_refused_too() -> None:
    """Each would pass for a dense FFN."""
    expert = {"up_proj": nn.Linear(4, 8), "down_proj": nn.Linear(8, 4), "act_fn": nn.SiLU()}
    experts = nn.ModuleList(Block(**expert) for _ in range(3))
    with pytest.raises(
        InputError, match=r"layers\.0 .*several FFNs of one kind \(layers\.0\.experts\.0"
    ):
        sites.find_ffns(model_of(Block(mlp=Block(up=nn.Linear(4, 4)), experts=experts)))


def test_a_convolution_is_no_bank_of_experts() -> None:
    with pytest.raises(InputError, match=r"layers\.0 \(Block\) is not supported: no FFN found"):
        sites.find_ffns(model_of(Block(conv=nn.Conv1d(4, 4, 3))))


def test_a_layer_without_a_known_ffn_is_named() -> None:
    strange = Block(w1=nn.Linear(4, 8), w2=nn.Linear(8, 4), act=nn.SiLU())
    good = Block(fc1=nn.Linear(4, 8), fc2=nn.Linear(8, 4), act=nn.SiLU())
    model = model_of(good, strange)
    with pytest.raises(InputError, match=r"layers\.1\.w1\.weight, layers\.1\.w2\.weight: weig"):
        check_accounted(model, sites.find_ffns(model))


def test_an_ffn_without_an_activation_is_refused() -> None:
    linear = Block(up_proj=nn.Linear(4, 8), down_proj=nn.Linear(8, 4))
    with pytest.raises(InputError, match=r"layers\.0 \(Block\) is not supported: activation none"):
        sites.find_ffns(model_of(linear))


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(InputError, match="no list of decoder layers found"):
        sites.find_ffns(nn.Linear(2, 2))


# -- look-alikes ----------------------------------------------------------------------------------


def clamped(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    gate, up = self.gate_proj(x).clamp(max=0.5), self.up_proj(x)
    return self.down_proj(self.act_fn(gate) * up)


def up_first(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Activation on the other projection."""
    return self.down_proj(self.act_fn(self.up_proj(x)) * self.gate_proj(x))


def plus_one(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """GPT-OSS's kind: f(gate) * (up + 1)."""
    return self.down_proj(self.act_fn(self.gate_proj(x)) * (self.up_proj(x) + 1))


def without_up(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return self.down_proj(self.act_fn(self.gate_proj(x)))


def with_residue(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x)) + 0.1 * x


@pytest.mark.parametrize("forward", [clamped, up_first, plus_one, without_up, with_residue])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gated_look_alike_is_caught_by_the_proof(tmp_path, monkeypatch, forward, dtype) -> None:
    folder = save_tiny_model(tmp_path, "llama", getattr(torch, dtype))
    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", forward)
    message = (
        r"layers\.0\.mlp \(LlamaMLP\), of a prompt alone: its output differs from transformers'"
    )
    with pytest.raises(InputError, match=message):
        TransformersEngine(EngineOptions(str(folder), dtype=dtype, threads=1, device="cpu"))


def test_merged_halves_in_the_other_order_are_caught(tmp_path, monkeypatch) -> None:
    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        up, gate = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(self.activation_fn(gate) * up)

    folder = save_tiny_model(tmp_path, "phi3", torch.float32)
    monkeypatch.setattr(modeling_phi3.Phi3MLP, "forward", forward)
    with pytest.raises(InputError, match=r"layers\.0\.mlp \(Phi3MLP\), .* its output differs"):
        TransformersEngine(EngineOptions(str(folder), dtype="float32", threads=1, device="cpu"))


def test_an_ungated_module_with_another_activation_is_caught(tmp_path, monkeypatch) -> None:
    """The activation module says GELU, the forward uses another one."""

    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(torch.relu(self.act(self.c_fc(x)) - 0.1))

    def misnamed(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)

    folder = save_tiny_model(tmp_path, "gpt2", torch.float32)
    options = EngineOptions(str(folder), dtype="float32", threads=1, device="cpu")
    monkeypatch.setattr(modeling_gpt2.GPT2MLP, "forward", forward)
    TransformersEngine(options)  # what comes after f changes nothing that is counted
    monkeypatch.undo()
    activation = type(
        AutoModelForCausalLM.from_config(tiny_config("gpt2")).transformer.h[0].mlp.act
    )
    monkeypatch.setattr(activation, "forward", misnamed)
    with pytest.raises(InputError, match=r"h\.0\.mlp \(GPT2MLP\), .* its output differs"):
        TransformersEngine(options)


# -- what is recognised ---------------------------------------------------------------------------

FORMS = {
    "llama": ("gated", "silu"),
    "gemma2": ("gated", "gelu_tanh"),
    "phi3": ("merged", "silu"),
    "gpt2": ("ungated", "gelu_tanh"),
    "gpt_neox": ("ungated", "gelu"),
    "opt": ("ungated", "relu"),
}
MORE = {
    "glm": ("merged", "silu"),
    "granite": ("gated", "silu"),
    "phi": ("ungated", "gelu_tanh"),
    "starcoder2": ("ungated", "gelu_tanh"),
    "nemotron": ("ungated", "relu2"),
}


@pytest.mark.parametrize("family", FORMS | MORE)
def test_forms_are_recognised_from_the_config_alone(family: str) -> None:
    known = family in DENSE
    config = tiny_config(family) if known else small(family, head_dim=8)
    form, activation = (FORMS | MORE)[family]
    space = describe_model(config)
    assert [s.name for s in space.sites] == [f"layer{j}.dense" for j in range(3 if known else 2)]
    assert {(s.width, s.activation, s.gated) for s in space.sites} == {
        (56, activation, form != "ungated")
    }
    found = sites.find_ffns(AutoModelForCausalLM.from_config(config))
    assert {ffn.form for ffn in found} == {form}
    assert sites.space_of(found) == space  # on the meta device as with weights


def test_a_shared_expert_is_a_site_of_its_own() -> None:
    shared = Block(gate_proj=nn.Linear(4, 6), up_proj=nn.Linear(4, 6), down_proj=nn.Linear(6, 4),
                   act_fn=nn.SiLU())  # fmt: skip
    (ffn,) = sites.find_ffns(model_of(Block(shared_expert=shared)))
    assert (ffn.site.kind, ffn.site.width) == ("shared", 6)


def test_the_outermost_list_holds_the_layers() -> None:
    """Lists inside a layer, however long, are not the layers."""
    inner = Block(fc1=nn.Linear(4, 8), fc2=nn.Linear(8, 4), act=nn.ReLU())
    inner.adapters = nn.ModuleList(nn.Linear(2, 2) for _ in range(9))
    found = sites.decoder_layers(model_of(inner))
    assert [name for name, _ in found] == ["layers.0"]


# -- counting is put in ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2", "opt"])
def test_every_form_hands_its_gate_and_up_to_the_counter_once_a_pass(family: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(family)).eval()
    ffns = sites.find_ffns(model)
    ids = torch.arange(3, 10)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
    seen: list[int] = []

    def count(site: int, gate: torch.Tensor, up: torch.Tensor | None) -> torch.Tensor:
        assert gate.shape == (7, 56)
        assert (up is None) == (ffns[site].form == "ungated")
        seen.append(site)
        f = {"silu": nn.functional.silu, "relu": torch.relu}.get(
            ffns[site].site.activation, lambda x: nn.functional.gelu(x, approximate="tanh")
        )
        return f(gate) if up is None else f(gate) * up

    recorder = types.SimpleNamespace(count=count, sites=sites.space_of(ffns).sites)
    sites.instrument(ffns, recorder, batch_tokens=7)
    with torch.no_grad():
        after = model(input_ids=ids).logits
    assert seen == [0, 1, 2]
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2", "opt", "qwen2_moe"])
def test_counting_can_be_taken_out_and_put_back(tmp_path, family: str) -> None:
    """Taken out, the modules are bit for bit those of a model that was never instrumented."""
    folder = save_tiny_model(tmp_path, family, torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    ffns = sites.find_ffns(model)
    recorder = Recorder(sites.space_of(ffns).sites, 1)
    put_in = sites.instrument(ffns, recorder, batch_tokens=7)
    ids = torch.arange(3, 10)[None]

    @torch.inference_mode()
    def counted() -> int:
        recorder.begin(torch.zeros(7, dtype=torch.int32))
        model(input_ids=ids)
        return int(recorder._buffers.rows[0].sum())

    assert counted() == 7
    with torch.inference_mode(), put_in.taken_out():
        assert torch.equal(model(input_ids=ids).logits, plain(input_ids=ids).logits)
        assert int(recorder._buffers.rows[0].sum()) == 7
    assert counted() == 14
