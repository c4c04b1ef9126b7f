"""The FFN activations of a loaded vLLM model, and the counting modules put in their place.

They are exchanged after the weights are loaded and before the first pass, so that eager and
compiled passes both meet them: what is exchanged or hooked later, a compiled graph never calls.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from vllm.distributed.parallel_state import get_tensor_model_parallel_world_size
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.model_executor.layers.fused_moe.runner.moe_runner import MoERunner
from vllm.model_executor.layers.linear import LinearBase, ReplicatedLinear, RowParallelLinear

from sparcom.components import LocalSite, Site, site_order
from sparcom.counting.activations import name_activation
from sparcom.engines.vllm.worker import quantised
from sparcom.engines.vllm.worker.counting_op import CountedActivation
from sparcom.engines.vllm.worker.moe import Bank
from sparcom.errors import InputError

_ACT_NAMES = ("act_fn", "act", "activation_fn", "activation", "gelu_impl")
# Modules whose input is gate and up side by side, and their f.
_PAIRED = {"SiluAndMul": "silu"}
# Gemma3n's layers have two products around an activation, for what each layer adds to a token.
_DOWN_NAMES = {"down_proj", "w2", "output_linear", "c_proj", "dense_4h_to_h", "fc2", "fc_out"}
_FFN_NAMES = {"mlp", "ffn", "feed_forward", "experts"}
_SHAPED = ("SiluAndMulWithClamp", "SwigluStepAndMul", "SituAndMul")  # they have parameters
_SINGLE = {
    "SiLU": "silu", "SiLUActivation": "silu", "ReLU": "relu", "NewGELU": "gelu_tanh",
    "NewGELUActivation": "gelu_tanh", "FastGELU": "gelu_tanh", "FastGELUActivation": "gelu_tanh",
    "GELUTanh": "gelu_tanh", "PytorchGELUTanh": "gelu_tanh", "GELUActivation": "gelu",
    "ReLUSquaredActivation": "relu2",
}  # fmt: skip


@dataclass(frozen=True)
class CountedSites:
    """Where a worker counts.

    local: its sites, in the order of the whole space. banks: those that are routed experts.
    without_h: names of the sites whose module gives f(gate), and not h.
    """

    local: tuple[LocalSite, ...]
    banks: tuple[Bank, ...]
    without_h: tuple[str, ...]


def instrument(model: nn.Module, signal: str) -> CountedSites:
    """Exchange every FFN activation of a model for a counting one.

    Routed experts count only after `bind_experts`.
    Raises InputError naming the module if the model is not one that can be counted.
    """
    experts = {name: m for name, m in model.named_modules() if isinstance(m, MoERunner)}
    routed = {m for one in experts.values() for m in one.routed_experts.modules()}
    shared = {m for one in experts.values() if one.shared_experts is not None
              for m in one.shared_experts.modules()}  # fmt: skip
    found: list[tuple[LocalSite, Bank | CountedActivation]] = []
    for name, module in model.named_modules():
        if name in experts:
            bank = Bank(name, module, layer_of(name))
            found.append((bank.local, bank))
        elif module not in routed:
            _refuse_experts(name, module)
            kind = "shared" if module in shared or _is_shared(name) else "dense"
            found += _exchange(name, module, kind, signal)
    found.sort(key=lambda one: site_order(one[0].site))
    for at, (_, counting) in enumerate(found):
        counting.site_index = at
    local = tuple(site for site, _ in found)
    _check_every_layer(model, local)
    return CountedSites(
        local,
        banks=tuple(one for _, one in found if isinstance(one, Bank)),
        without_h=tuple(
            local.site.name
            for local, one in found
            if isinstance(one, CountedActivation) and not one.gives_h
        ),
    )


def _exchange(
    name: str, parent: nn.Module, kind: str, signal: str
) -> list[tuple[LocalSite, CountedActivation]]:
    """The site of the MLP that `parent` is, and what counts there now; [] if it is no MLP."""
    children = dict(parent.named_children())
    act = next((n for n in _ACT_NAMES if n in children), None)
    down = _down_projection(name, children) if act else None
    if act is None or down is None:
        return []
    f, paired = _function(f"{name}.{act}", children[act])
    # An `up_proj` alone makes no gate: Nemotron has up_proj, activation, down_proj.
    gives_h = paired or {"gate_proj", "gate_up_proj"}.isdisjoint(children)
    if not gives_h and signal == "product":
        raise InputError(f"signal product: {name} multiplies gate and up outside its activation")
    site = Site(kind, layer_of(name), down.input_size, f, gated=paired or not gives_h)
    units = 0, down.input_size
    if isinstance(down, RowParallelLinear):
        start = down.tp_rank * down.input_size_per_partition
        units = start, start + down.input_size_per_partition
    counting = CountedActivation(paired, gives_h)
    setattr(parent, act, counting)
    quantised.connect(counting, down)
    return [(LocalSite(site, units), counting)]


def _down_projection(name: str, children: Mapping[str, nn.Module]) -> LinearBase | None:
    """What follows the activation of an MLP; None if its children are not those of an MLP.

    vLLM's transformers backend leaves products whole in models that name no way to split them: the
    last one is down, by its name and by its shape. Raises InputError if several workers hold it
    whole: each would count it.
    """
    downs = [c for c in children.values() if isinstance(c, RowParallelLinear)]
    if downs:
        return downs[0] if len(downs) == 1 else None
    names = [n for n, c in children.items() if isinstance(c, ReplicatedLinear)]
    if not (2 <= len(names) <= 3 and names[-1] in _DOWN_NAMES):
        return None
    first, down = children[names[0]], children[names[-1]]
    if first.output_size != down.input_size:
        return None
    if get_tensor_model_parallel_world_size() > 1:
        raise InputError(f"{name}: every worker holds this MLP whole; use tensor-parallel 1")
    return down


def _is_shared(name: str) -> bool:
    """True if a module is called shared within its layer.

    Granite's and Hunyuan's shared MLP is no part of vLLM's experts module. The transformers engine
    reads names in the same way, so that both engines count the same sites.
    """
    return "shared" in re.split(r"\.\d+\.", name)[-1]


def layer_of(name: str) -> int:
    """`model.layers.3.mlp` -> 3; raises InputError if the name does not say one layer."""
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    if len(numbers) != 1:
        raise InputError(f"{name}: this module's name does not say its layer")
    return numbers[0]


def _function(name: str, module: nn.Module) -> tuple[str, bool]:
    """(name of f, True if the input is gate and up side by side)."""
    kind = type(module).__name__
    if kind in _PAIRED:
        return _PAIRED[kind], True
    if kind in _SHAPED:
        return _with_parameters(module), True
    if kind in ("GeluAndMul", "GELU"):
        exact = getattr(module, "approximate", "none") == "none"
        return "gelu" if exact else "gelu_tanh", kind == "GeluAndMul"
    if kind in _SINGLE:
        return _SINGLE[kind], False
    known = sorted([*_PAIRED, *_SHAPED, *_SINGLE, "GeluAndMul", "GELU"])
    raise InputError(
        f"{name}: activation module {kind} is not supported; supported are {', '.join(known)}"
    )


def _with_parameters(module: Any) -> str:
    kind = type(module).__name__
    if kind == "SituAndMul":
        return name_activation("situ", beta=module.beta, linear_beta=module.linear_beta or 0.0)
    if kind == "SwigluStepAndMul":
        return name_activation("swiglu_step", limit=module.limit)
    return name_activation(
        "swiglu", limit=module.swiglu_limit, alpha=module.alpha, beta=module.beta
    )


def _refuse_experts(name: str, module: nn.Module) -> None:
    """Raise InputError for fused weights outside vLLM's experts modules: nothing counts there.

    Attention holds some for its heads, a depthwise convolution has [channels, 1, width], and a
    quantised product may lie in blocks. What lies in no layer is no expert: Gemma 4's positions of
    image patches.
    """
    in_layer = any(part.isdigit() for part in name.split("."))
    if not in_layer or isinstance(module, AttentionLayerBase | LinearBase):
        return
    if any(p.dim() == 3 and p.shape[1] > 1 for p in module.parameters(recurse=False)):
        raise InputError(
            f"{name} ({type(module).__name__}): weights of three dimensions outside "
            "vLLM's experts modules; experts of this kind are not supported by the vllm engine"
        )


def _check_every_layer(model: nn.Module, found: Sequence[LocalSite]) -> None:
    """Raise InputError if nothing counts, or if a decoder layer has an FFN by its name and no site.

    A layer may have none: some of a hybrid model mix tokens only.
    """
    layers = set()
    for name, _ in model.named_parameters():
        parts = name.split(".")
        if _FFN_NAMES.intersection(parts):
            layers.update([int(part) for part in parts if part.isdigit()][:1])
    missing = sorted(layers - {local.site.layer for local in found})
    if missing or not found:
        where = f"layer {missing[0]}" if missing else "any layer"
        raise InputError(
            f"model {type(model).__name__}: no FFN activation module found in {where}; its MLP is "
            "fused or unknown, so that nothing could be counted there"
        )
