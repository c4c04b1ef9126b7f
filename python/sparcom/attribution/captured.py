"""h of every site of one pass, kept for a backward pass.

The modules are transformers' own. What goes into a down projection is caught by a hook; fused
experts have no module there, so that they run by the loop below, one expert after the other, as
transformers' own eager experts do.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from sparcom.engines.transformers.moe import bias_names, weight_names
from sparcom.engines.transformers.sites import Ffn
from sparcom.errors import SparcomError

NAME = "sparcom_differentiable"
_KEEP = "_sparcom_keep"


class Kept(NamedTuple):
    """h [..., width] of a site; expert: whose it is, 0 at a site without; None: of all experts, in
    the first dimension."""

    site: int
    expert: int | None
    h: torch.Tensor


@contextmanager
def keeping(ffns: Sequence[Ffn], kept: list[Kept]) -> Iterator[None]:
    """Within the block, every pass adds its h to `kept`. The model must be as transformers made
    it (`Instrumentation.taken_out`)."""
    with ExitStack() as stack:
        for at, ffn in enumerate(ffns):
            keep = partial(_keep, kept, at, ffn)
            module: Any = ffn.module
            if ffn.form == "routed":
                stack.callback(delattr, module, _KEEP)
                setattr(module, _KEEP, keep)
                config = module.config
                before = config._experts_implementation
                stack.callback(setattr, config, "_experts_implementation", before)
                config._experts_implementation = NAME
            elif ffn.form == "scaled":
                experts = module.experts
                stack.callback(delattr, experts, "forward")
                experts.forward = partial(_scaled_experts, experts, keep)
            else:
                down = attrgetter(ffn.parts[-1])(module)
                stack.callback(down.register_forward_pre_hook(partial(_before, keep)).remove)
        yield


def _before(keep: Callable[..., None], _: nn.Module, given: tuple[Any, ...]) -> None:
    keep(0, given[0])


def _keep(kept: list[Kept], at: int, ffn: Ffn, expert: int | None, h: torch.Tensor) -> None:
    if h.shape[-1] != ffn.site.width:
        raise SparcomError(
            f"attribution: {ffn.name}: its down projection takes in {list(h.shape)}, expected "
            f"[..., {ffn.site.width}]"
        )
    kept.append(Kept(at, expert, h))


def _fused_experts(
    module: Any, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """The implementation of transformers' experts interface that keeps h.

    y[t] = sum over k of weights[t, k] * down[e](h), h = gating(first[e](hidden[t])), e = ids[t, k]
    """
    keep: Callable[..., None] = getattr(module, _KEEP)
    first, down = (getattr(module, name) for name in weight_names(module))
    biases = [getattr(module, name) for name in bias_names(module)] or [None, None]
    gating = module._apply_gate if module.has_gate else module.act_fn
    turned = module.is_transposed
    out = torch.zeros_like(hidden)
    for expert in ids.unique().tolist():
        if expert == len(down):  # transformers' mark for no expert
            continue
        token, choice = torch.where(ids == expert)
        h = gating(_product(hidden[token], first, biases[0], expert, turned))
        keep(expert, h)
        y = _product(h, down, biases[1], expert, turned) * weights[token, choice, None]
        out = out.index_add(0, token, y.to(out.dtype))
    return out


def _product(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, expert: int, turned: bool
) -> torch.Tensor:
    own = weight[expert] if turned else weight[expert].T
    y = x @ own
    return y if bias is None else y + bias[expert]


def _scaled_experts(experts: Any, keep: Callable[..., None], hidden: torch.Tensor) -> torch.Tensor:
    """Llama 4's experts, each on every token, as transformers runs them; hidden: [experts * tokens,
    hidden], 0 where the router did not choose."""
    x = hidden.view(len(experts.down_proj), -1, hidden.shape[-1])
    gate, up = torch.bmm(x, experts.gate_up_proj).chunk(2, dim=-1)
    h = experts.act_fn(gate) * up
    keep(None, h)
    return torch.bmm(h, experts.down_proj).view(-1, hidden.shape[-1])


ALL_EXPERTS_FUNCTIONS.register(NAME, _fused_experts)
