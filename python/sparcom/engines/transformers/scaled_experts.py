"""Experts that take in their token times the router's weight, instead of weighing what they return.

    y[t] = down[e](f(gate[e](x[t] * weight[t])) * up[e](x[t] * weight[t])),  e = ids[t]

Llama 4 is built so, with one expert a token. transformers runs every expert on every token there;
the weight of an expert that the router did not choose is 0, and so are its gates. Here only the
chosen experts run. Weights are positive, so that they change no gate's sign.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sparcom.components import Site
from sparcom.errors import InputError

_CHILDREN = {"experts", "router", "shared_expert"}


def is_scaled(block: nn.Module) -> bool:
    """True if a module holds a router and experts that take in a weighed token and no routing."""
    children = dict(block.named_children())
    if not children.keys() >= _CHILDREN:
        return False
    experts = children["experts"]
    taken = inspect.signature(type(experts).forward).parameters
    weights = [getattr(experts, name, None) for name in ("gate_up_proj", "down_proj")]
    fused = all(isinstance(w, nn.Parameter) and w.dim() == 3 for w in weights)
    return fused and list(taken) == ["self", "hidden_states"]


def describe(block: Any, layer: int, activation: str | None) -> Site:
    """The site of a block of scaled experts.

    activation: name of the f of its experts' activation module; None if it is not known.
    Raises InputError saying what is not supported.
    """
    experts, top_k = block.experts, block.router.top_k
    if activation is None:
        raise InputError(f"activation {type(getattr(experts, 'act_fn', None)).__name__}")
    if top_k != 1:
        raise InputError(
            f"its router weighs the input of {top_k} experts a token; only one is supported"
        )
    number, width, _ = experts.down_proj.shape
    return Site("routed", layer, width, activation, gated=True, experts=number, top_k=1)


def products(block: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of the experts as [experts, inputs, outputs]: gate and up side by side, and down."""
    return block.experts.gate_up_proj, block.experts.down_proj


def routing(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, weights), each [tokens, 1], of what a router puts out first.

    scores: [tokens, experts], 0 for experts that are not chosen.
    """
    weights, ids = scores.topk(1, dim=1)
    return ids, weights


def scores_of(ids: torch.Tensor, weights: torch.Tensor, experts: int) -> torch.Tensor:
    """The scores that `routing` reads these ids and weights from."""
    return weights.new_zeros(len(ids), experts).scatter_(1, ids, weights)


def counting_forward(run: Callable[..., torch.Tensor]) -> Callable:
    """The forward of a block whose experts are run, and counted, by a `GroupedExperts`."""

    def forward(self: Any, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = hidden_states.reshape(-1, hidden_states.shape[-1])
        scores, logits = self.router(hidden)
        ids, weights = routing(scores)
        routed = run(hidden * weights, ids, torch.ones_like(weights))
        return self.shared_expert(hidden).add_(routed), logits

    return forward
