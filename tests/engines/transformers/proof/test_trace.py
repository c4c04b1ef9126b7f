"""Hooks keep what modules take in and put out, and give layers the inputs of another pass."""

import pytest
import torch
from tiny_models import tiny_config
from torch import nn
from transformers import AutoModelForCausalLM

from sparcom.engines.transformers import sites
from sparcom.engines.transformers.proof.trace import (
    INPUT,
    OUTPUT,
    Points,
    Trace,
    forced,
    row_axis,
    tracing,
)
from sparcom.errors import InputError


def model_of(family: str) -> tuple[nn.Module, Points]:
    torch.manual_seed(0)
    config = tiny_config(family)
    model = AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    return model, Points.of(model, sites.find_ffns(model))


def ids(rows: int, first: int = 3) -> torch.Tensor:
    return torch.arange(first, first + rows)[None]


@torch.inference_mode()
def traced(model: nn.Module, points: Points, tokens: torch.Tensor, **options: bool) -> Trace:
    with tracing(points, tokens.shape[1], **options) as trace:
        model.base_model(input_ids=tokens)
    return trace


def hooks_left(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2", "qwen2_moe", "phi3"])
def test_a_trace_holds_what_the_modules_say_and_leaves_no_hook(family: str) -> None:
    model, points = model_of(family)
    with torch.inference_mode():
        expected = model.base_model(input_ids=ids(7), output_hidden_states=True).hidden_states
    before = hooks_left(model)
    trace = traced(model, points, ids(7), gates=True)
    assert hooks_left(model) == before
    for (name, _), hidden in zip(points.layers, expected, strict=False):
        torch.testing.assert_close(trace.states[name, INPUT], hidden[0])
    assert len(trace.gates) == len(points.ffns)
    for at, ffn in enumerate(points.ffns):
        rows = sum(len(gate) for gate in trace.gates[at])
        assert rows == 7 * max(ffn.site.top_k, 1)
        assert all(gate.shape[1] == ffn.site.width for gate in trace.gates[at])


@pytest.mark.parametrize("family", ["llama", "opt", "qwen3_moe"])
def test_a_forced_pass_puts_out_what_the_other_pass_did(family: str) -> None:
    """Other tokens, the inputs of the first pass: each layer repeats it, rows in another place."""
    model, points = model_of(family)
    plain = traced(model, points, ids(5))
    tokens = torch.cat([ids(5, 40), ids(4, 60)], 1)
    with (
        torch.inference_mode(),
        tracing(points, 9) as trace,
        forced(points, trace, {0: plain}),
    ):
        model.base_model(input_ids=tokens)
    for name, _ in points.layers:
        torch.testing.assert_close(trace.states[name, OUTPUT][:5], plain.states[name, OUTPUT])
    first = points.layers[0][0]
    assert not torch.allclose(trace.states[first, INPUT][:5], plain.states[first, INPUT])


def test_a_layer_that_runs_twice_is_refused_and_a_norm_is_not() -> None:
    trace = Trace(3)
    state = torch.zeros(1, 3, 4)
    trace.keep("norm", OUTPUT, state, once=False)
    trace.keep("norm", OUTPUT, state + 1, once=False)
    assert (trace.states["norm", OUTPUT] == 0).all()
    trace.keep("layers.0", OUTPUT, (state, None))
    with pytest.raises(InputError, match="layers.0 runs more than once in a pass"):
        trace.keep("layers.0", OUTPUT, state)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((1, 7, 4), 1), ((7, 4), 0), ((4, 1, 7, 9), 2), ((7,), None), ((2, 4), None)],
)
def test_the_rows_are_the_last_axis_of_their_number_but_the_features(shape, axis) -> None:
    assert row_axis(torch.zeros(shape), 7) == axis


def test_an_ffn_outside_the_layers_may_be_there_and_not_run() -> None:
    model, points = model_of("llama")
    assert points.outside == ()
    model.model.extra = type(model.model.layers[0].mlp)(model.config)
    points = Points.of(model, sites.find_ffns(model))
    assert [name for name, _ in points.outside] == ["model.extra"]
    traced(model, points, ids(4))
    model.model.norm.register_forward_hook(lambda m, a, out: model.model.extra(out))
    with pytest.raises(
        InputError, match=r"model\.extra \(LlamaMLP\) is an FFN outside the decoder"
    ):
        traced(model, points, ids(4))
