"""Routed experts of a transformers model: what they are, and how they run and are counted.

transformers keeps the experts of a layer as fused weights behind an interface of implementations.
Ours, `sparcom_counting`, is registered there; it is `engines.experts.GroupedExperts`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from sparcom.components import Site
from sparcom.counting.recorder import Recorder
from sparcom.engines.experts.grouped import GroupedExperts, Workspace
from sparcom.engines.experts.tiles import Sizes, agreeing_sizes
from sparcom.engines.transformers import scaled_experts
from sparcom.engines.transformers.gating import gating_of_experts
from sparcom.errors import CountError, InputError

NAME = "sparcom_counting"
RUNNER = "_sparcom_runner"
# Where routers keep the projection that weighs the experts, if not themselves: Afmoe,
# Hunyuan, Gemma 4, Zaya.
_ROUTER_LINEARS = ("gate", "wg", "proj", "router_mlp.out_proj")


def is_experts(module: nn.Module) -> bool:
    """True if a module holds fused routed experts: parameters of three dimensions."""
    if isinstance(module, nn.Conv1d):
        return False
    return any(p.dim() == 3 for p in module.parameters(recurse=False))


def describe_experts(module: Any, owner: nn.Module, layer: int, activation: str | None) -> Site:
    """The site of a module of fused experts.

    owner: the module that holds it and its router.
    activation: name of the f of its activation module; None if that is not known.
    Raises InputError saying what is not supported.
    """
    experts, width = _weights_shape(module)
    own_gate = type(module)._apply_gate.__name__ != "_default_apply_gate"
    if module.has_gate and (own_gate or activation is None):
        activation = gating_of_experts(module, activation)
    elif activation is None:
        what = type(getattr(module, "act_fn", None)).__name__
        raise InputError(f"activation {what}")
    router, top_k, known = _router_of(owner)
    if not isinstance(top_k, int) or not known:
        raise InputError("no router with top_k and weight was found beside it")
    if known != experts:
        raise InputError(
            f"its router, {type(router).__name__}, weighs {known} choices, but it holds {experts} "
            "experts; a choice that is none of them (no expert, a shared one) cannot be counted"
        )
    return Site(
        "routed", layer, width, activation, gated=module.has_gate, experts=experts, top_k=top_k
    )


def weight_names(module: Any) -> tuple[str, str]:
    """Names of the fused weights of experts."""
    return ("gate_up_proj" if module.has_gate else "up_proj"), "down_proj"


def bias_names(module: Any) -> tuple[str, ...]:
    """Names of the biases of experts; () if they have none."""
    return tuple(f"{name}_bias" for name in weight_names(module)) if module.has_bias else ()


def _weights_shape(module: Any) -> tuple[int, int]:
    """(experts, width) of a module of fused experts."""
    flags = ("has_gate", "has_bias", "is_transposed", "is_concatenated", "_apply_gate")
    if not all(hasattr(module, flag) for flag in flags):
        raise InputError("its experts do not use transformers' experts interface")
    down, first = getattr(module, "down_proj", None), _first_weight(module)
    if down is None or first is None or down.dim() != 3 or first.dim() != 3:
        raise InputError("no fused weights gate_up_proj (or up_proj) and down_proj in it")
    return down.shape[0], down.shape[1 if module.is_transposed else 2]


def _first_weight(module: Any) -> torch.Tensor | None:
    return getattr(module, weight_names(module)[0], None)


def _router_of(owner: nn.Module) -> tuple[nn.Module | None, object, int]:
    """(router, experts per token, experts that it knows) of the block that holds experts."""
    router = next((m for m in owner.children() if hasattr(m, "top_k")), None)
    top_k = getattr(owner if router is None else router, "top_k", None)
    if router is None:  # Jamba's is a plain projection
        router = getattr(owner, "router", None)
    if top_k is None:  # Gemma 4's reads it from its config
        top_k = getattr(getattr(router, "config", None), "top_k_experts", None)
    linears = (router, *(_submodule(router, name) for name in _ROUTER_LINEARS))
    weights = (getattr(linear, "weight", None) for linear in linears)
    return router, top_k, next((len(w) for w in weights if w is not None), 0)


def _submodule(module: nn.Module | None, path: str) -> nn.Module | None:
    for name in path.split("."):
        module = getattr(module, name, None)
    return module


def _as_product(module: Any, weight: torch.Tensor) -> torch.Tensor:
    """[experts, inputs, outputs] of a fused weight."""
    return weight if module.is_transposed else weight.transpose(1, 2)


def prepare_experts(
    modules: list[tuple[int, str, Any]], recorder: Recorder, batch_tokens: int
) -> None:
    """Give experts modules what our implementation runs; it runs once a config names it.

    modules: (index of the site, name, module) each, fused or scaled experts.
    batch_tokens: rows of a pass.
    """
    workspace = Workspace()
    sizes: dict[tuple, Sizes] = {}
    for at, name, module in modules:
        site = recorder.sites[at]
        if scaled_experts.is_scaled(module):
            (first, down), biases, turns = scaled_experts.products(module), (), False
        else:
            if module._is_expert_parallel:
                raise InputError(f"{name}: experts spread by transformers' own expert parallelism")
            first, down = (_as_product(module, getattr(module, w)) for w in weight_names(module))
            biases = tuple(getattr(module, part).detach() for part in bias_names(module))
            turns = module.has_gate and not module.is_concatenated
        key = first.shape, down.shape, first.dtype
        if key not in sizes:
            sizes[key] = agreeing_sizes([first, down], batch_tokens * site.top_k // site.experts)
        runner = GroupedExperts(
            first, down, site, at, recorder, workspace, sizes[key], name,
            biases=biases, turns=turns,
        )  # fmt: skip
        setattr(module, RUNNER, runner)


def _counting_experts(
    module: nn.Module, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """What transformers calls as the implementation `sparcom_counting`."""
    runner: Callable | None = getattr(module, RUNNER, None)
    if runner is None:
        raise CountError(f"{type(module).__name__}: {NAME} was chosen, but nothing counts here")
    return runner(hidden, ids, weights)


ALL_EXPERTS_FUNCTIONS.register(NAME, _counting_experts)
