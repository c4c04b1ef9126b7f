"""What a loaded vLLM model's MLPs are taken for, from their parts."""

import pytest
import torch
from torch import nn

from sparcom.errors import InputError

pytest.importorskip("vllm", reason="vLLM is not installed")


@pytest.fixture(scope="module")
def sites():
    from sparcom.engines.vllm.worker import sites

    return sites


def mlp(sites, *projections: str) -> nn.Module:
    """An MLP with an activation module of one input."""

    class Down(sites.RowParallelLinear):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.tp_rank, self.input_size, self.input_size_per_partition = 1, 8, 4

    made = nn.Module()
    for name in projections:
        setattr(made, name, nn.Linear(4, 8))
    made.act_fn, made.down_proj = nn.SiLU(), Down()
    return made


@pytest.mark.parametrize(
    ("projections", "gated"),
    [(("gate_proj", "up_proj"), True), (("gate_up_proj",), True), (("up_proj",), False)],
)
def test_what_an_mlp_is_taken_for(sites, projections, gated):
    """Of Nemotron's kind, up_proj alone, none is gated."""
    parts = mlp(sites, *projections)
    ((local, counting),) = sites._exchange("model.layers.2.mlp", parts, "dense", "gate")
    assert (local.site.name, local.site.width, local.units) == ("layer2.dense", 8, (4, 8))
    assert (local.site.gated, counting.gives_h) == (gated, not gated)
    assert parts.act_fn is counting


def whole_mlp(sites, up: int = 8, names: tuple[str, str] = ("c_fc", "c_proj")) -> nn.Module:
    """An MLP of vLLM's transformers backend, of a model that names no way to split it."""

    class Whole(sites.ReplicatedLinear):
        def __init__(self, inputs: int, outputs: int) -> None:
            nn.Module.__init__(self)
            self.input_size, self.output_size = inputs, outputs

    made = nn.Module()
    for name, product in zip(names, (Whole(4, up), Whole(8, 4)), strict=True):
        setattr(made, name, product)
    made.act = nn.GELU()
    return made


def test_products_that_are_not_split_are_an_mlp_too(sites, monkeypatch):
    workers = 1
    monkeypatch.setattr(sites, "get_tensor_model_parallel_world_size", lambda: workers)
    parts = whole_mlp(sites)
    ((local, counting),) = sites._exchange("transformer.h.1.mlp", parts, "dense", "gate")
    assert (local.site.name, local.units, local.site.gated) == ("layer1.dense", (0, 8), False)
    assert parts.act is counting
    assert sites._exchange("transformer.h.1.attn", whole_mlp(sites, up=7), "dense", "gate") == []
    other = whole_mlp(sites, names=("per_layer_input_gate", "per_layer_projection"))  # Gemma3n
    assert sites._exchange("model.layers.1", other, "dense", "gate") == []
    workers = 2
    with pytest.raises(InputError, match=r"h\.1\.mlp: every worker holds this MLP whole"):
        sites._exchange("transformer.h.1.mlp", whole_mlp(sites), "dense", "gate")


def test_the_product_is_refused_where_it_is_made_outside(sites):
    parts = mlp(sites, "gate_proj", "up_proj")
    with pytest.raises(InputError, match="layers.2.mlp multiplies gate and up outside"):
        sites._exchange("model.layers.2.mlp", parts, "dense", "product")
    assert sites._exchange("model.layers.2.mlp", mlp(sites, "up_proj"), "dense", "product")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.layers.1.mlp", "dense"),
        ("model.layers.1.shared_mlp", "shared"),
        ("model.layers.1.mlp.shared_mlp", "shared"),
        ("model.shared.layers.1.mlp", "dense"),
    ],
)
def test_an_mlp_is_shared_if_it_is_called_so_in_its_layer(sites, name, kind):
    """As the transformers engine reads names, and whether or not vLLM holds it beside experts."""
    holder = nn.Module()
    at = holder
    *path, last = name.split(".")
    for part in path:
        at.add_module(part, nn.Module())
        at = at.get_submodule(part)
    at.add_module(last, mlp(sites, "gate_proj", "up_proj"))
    (local,) = sites.instrument(holder, "gate").local
    assert local.site.name == f"layer1.{kind}"


def test_fused_weights_of_a_layer_are_refused_and_others_are_not(sites):
    """Experts that vLLM does not hold in its own modules; positions of image patches are none."""
    fused = nn.Module()
    fused.weight = nn.Parameter(torch.zeros(4, 2, 8))
    with pytest.raises(InputError, match=r"layers.1.mlp.experts \(Module\): weights of three dim"):
        sites._refuse_experts("model.layers.1.mlp.experts", fused)
    sites._refuse_experts("vision_embedder", fused)
    fused.weight = nn.Parameter(torch.zeros(4, 1, 8))  # a depthwise convolution
    sites._refuse_experts("model.layers.1.conv", fused)
