"""A weight matrix of a decoder layer that no known part holds refuses the model by name."""

import pytest
import torch
from tiny_models import DENSE, MOE, tiny_config
from torch import nn
from transformers import AutoModelForCausalLM

from sparcom.engines.transformers import sites
from sparcom.engines.transformers.accounting import check_accounted
from sparcom.errors import InputError


def model_of(family: str) -> nn.Module:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(tiny_config(family))


def check(model: nn.Module) -> None:
    check_accounted(model, sites.find_ffns(model))


@pytest.mark.parametrize("family", DENSE | MOE)
def test_every_matrix_of_a_known_family_is_accounted_for(family: str) -> None:
    check(model_of(family))


class Odd(nn.Module):
    """An FFN of which no part has a known name."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(32, 56), nn.Linear(56, 32)


@pytest.mark.parametrize("family", ["llama", "qwen2_moe", "gpt2", "opt"])
def test_an_ffn_beside_a_known_one_is_found(family: str) -> None:
    """Granite's shared MLP was of that kind."""
    model = model_of(family)
    name, layer = sites.decoder_layers(model)[1]
    layer.odd_mlp = Odd()
    odd = rf"{name}\.odd_mlp"
    message = rf"{odd}\.wide\.weight, {odd}\.narrow\.weight: weights of no attention, norm, router"
    with pytest.raises(InputError, match=message):
        check(model)


def test_a_matrix_inside_a_known_ffn_that_is_no_part_of_it_is_found() -> None:
    model = model_of("llama")
    model.model.layers[2].mlp.extra = nn.Linear(32, 32)
    with pytest.raises(InputError, match=r"LlamaForCausalLM: model\.layers\.2\.mlp\.extra\.weight"):
        check(model)


def test_vectors_are_no_matrices() -> None:
    model = model_of("llama")
    model.model.layers[0].scale = nn.Parameter(torch.zeros(32))
    check(model)


def test_a_router_scales_or_chooses_experts_and_is_known() -> None:
    model = model_of("qwen2_moe")
    block = model.model.layers[1].mlp
    assert block.shared_expert_gate.out_features == 1
    check(model)
    block.shared_expert_gate = nn.Linear(32, 2)
    with pytest.raises(InputError, match=r"layers\.1\.mlp\.shared_expert_gate\.weight"):
        check(model)


def test_a_second_list_of_the_same_layers_is_refused() -> None:
    model = model_of("llama")
    kind = type(model.model.layers[0])
    model.model.other = nn.ModuleList([kind(model.config, 0)])
    with pytest.raises(InputError, match=r"model\.other\.0 is a decoder layer as model\.layers\.0"):
        check(model)
