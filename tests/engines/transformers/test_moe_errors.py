"""Mixtures of experts: bad routing and unknown experts are errors that name layer and module."""

import pytest
import torch
from tiny_models import save_tiny_model
from torch import nn
from transformers_tools import assert_equal, count_all, load, make_prompts

from sparcom.engines.packing import Pass
from sparcom.engines.transformers import sites
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.errors import CountError, InputError


@pytest.fixture
def engine(tmp_path) -> TransformersEngine:
    return load(save_tiny_model(tmp_path, "qwen3_moe", torch.float32), "float32")


def change_ids(engine: TransformersEngine, change) -> None:
    """Let the router of layer 1 send other ids."""
    router = engine.model.model.layers[1].mlp.gate
    router.register_forward_hook(lambda m, args, out: (*out[:2], change(out[2].clone())))


def set_cell(value: int):
    def change(ids: torch.Tensor) -> torch.Tensor:
        ids[3, 1] = value
        return ids

    return change


@pytest.mark.parametrize("value", [-1, 6, 1 << 40])
def test_an_expert_out_of_range_is_an_error_with_layer_and_module(engine, value: int) -> None:
    change_ids(engine, set_cell(value))
    with pytest.raises(CountError, match=r"layer1\.routed \(model\.layers\.1\.mlp\.experts\): row "
                       rf"3 is routed to experts \[\d, {value}\], but there are 6"):  # fmt: skip
        count_all(engine, make_prompts())


def test_a_token_routed_twice_to_one_expert_is_an_error(engine) -> None:
    change_ids(engine, lambda ids: ids[:, :1].expand(-1, 2).clone())
    with pytest.raises(CountError, match=r"layer1\.routed .*row 0 is routed twice"):
        count_all(engine, make_prompts())


def test_another_number_of_experts_a_token_is_an_error(engine) -> None:
    change_ids(engine, lambda ids: ids[:, :1])
    with pytest.raises(CountError, match=r"layer1\.routed .*sends \[64, 1\] ids, expected "):
        count_all(engine, make_prompts())


def test_after_an_error_the_engine_counts_as_before(engine) -> None:
    prompts = make_prompts()
    before = count_all(engine, prompts)
    router = engine.model.model.layers[1].mlp.gate
    hook = router.register_forward_hook(lambda m, args, out: (*out[:2], out[2] + 6))
    with pytest.raises(CountError):
        count_all(engine, prompts)
    hook.remove()
    assert_equal(count_all(engine, prompts), before)


def test_experts_called_with_other_rows_than_the_pass_has_are_an_error(engine) -> None:
    block = engine.model.model.layers[2].mlp
    inner = block.experts.forward
    block.experts.forward = lambda x, ids, w: inner(x[:9], ids[:9], w[:9])
    with pytest.raises(CountError, match=r"layer2\.routed: got 9 rows, but the pass has 64"):
        engine.forward(make_prompts((20, 33)), Pass((0, 1), 64))


def test_experts_that_are_not_called_are_an_error(engine) -> None:
    engine.model.model.layers[2].mlp.experts.forward = lambda x, ids, w: x
    with pytest.raises(CountError, match=r"conservation: layer2\.routed saw 0 rows"):
        count_all(engine, make_prompts())


def test_a_router_of_another_width_is_an_error(engine) -> None:
    router = engine.model.model.layers[1].mlp.gate
    router.weight = nn.Parameter(torch.zeros(5, 32))
    with pytest.raises(InputError, match=r"layers\.1\.mlp\.experts .*weighs 5 choices, .*holds 6"):
        sites.find_ffns(engine.model)


def test_experts_without_a_router_are_an_error(engine) -> None:
    engine.model.model.layers[0].mlp.gate = nn.Identity()
    with pytest.raises(InputError, match=r"layers\.0\.mlp\.experts .*no router"):
        sites.find_ffns(engine.model)


def test_an_unknown_gating_is_refused_by_name(engine, monkeypatch) -> None:
    experts = engine.model.model.layers[1].mlp.experts

    def odd(self, gate_up: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up.chunk(2, -1)
        return torch.sin(gate) * up

    monkeypatch.setattr(type(experts), "_apply_gate", odd)
    with pytest.raises(InputError, match=r"experts .* not supported: its gating is none that is k"):
        sites.find_ffns(engine.model)


def test_an_unknown_experts_module_is_refused_by_name(engine) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(6, 32, 24))

    engine.model.model.layers[1].mlp.experts = Odd()
    with pytest.raises(InputError, match=r"layers\.1\.mlp\.experts \(Odd\) is not supported: its "
                       "experts do not use transformers' experts interface"):  # fmt: skip
        sites.find_ffns(engine.model)


def test_experts_that_are_a_list_of_modules_are_refused_by_name(engine) -> None:
    layer = engine.model.model.layers[1]
    dense = load_dense_mlp(layer)
    layer.mlp.experts = nn.ModuleList([dense, dense.__class__(engine.model.config, 24)])
    with pytest.raises(InputError, match=r"layers\.1 .*several FFNs of one kind .*experts\.0"):
        sites.find_ffns(engine.model)


def load_dense_mlp(layer: nn.Module) -> nn.Module:
    """An MLP of the family's own kind."""
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeMLP

    return Qwen3MoeMLP(layer.mlp.experts.config, 24)


def test_experts_on_the_meta_device_are_an_error(engine) -> None:
    ffns = sites.find_ffns(engine.model)
    engine.model.model.layers[1].mlp.experts.to("meta")
    with pytest.raises(InputError, match=r"layers\.1\.mlp\.experts .*on the meta device"):
        sites.instrument(ffns, engine.recorder, 64)


def test_experts_that_transformers_spreads_are_refused(engine) -> None:
    ffns = sites.find_ffns(engine.model)
    engine.model.model.layers[1].mlp.experts._is_expert_parallel = True
    with pytest.raises(InputError, match=r"layers\.1\.mlp\.experts: .*expert parallelism"):
        sites.instrument(ffns, engine.recorder, 64)


def test_our_implementation_without_a_recorder_is_an_error(engine) -> None:
    module = engine.model.model.layers[0].mlp.experts
    del module._sparcom_runner
    with pytest.raises(CountError, match="nothing counts here"):
        engine.forward(make_prompts((5,)), Pass((0,), 64))
