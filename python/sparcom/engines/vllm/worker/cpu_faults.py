"""What vLLM 0.32.0 computes wrongly on CPU, and nowhere else, put right in this process.

The first two are silent: vLLM serves another model than the one that was trained. The classes are
changed before a model is built, since vLLM binds the methods of its modules as it makes them.

- `CPURouter` (fused_moe/router/cpu_router.py) ignores the correction bias of experts that are not
  grouped, and has no sigmoid scores for them: ERNIE 4.5, MiniMax-M2.
- The CPU kernel of `ops.rotary_embedding` takes the heads of a query of shape [tokens, heads, head]
  for its tokens, so that only the first tokens are rotated: LFM2, LFM2-MoE.
- The gated delta rule (mamba/ops/cpu/gdn_attention.py) fails in a pass of one token: what it takes
  in is a part of a wider product, and `contiguous()` keeps the strides of a single row, which the
  kernel of the convolution refuses ("expect x to be transposed"): Qwen3.5.
"""

from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.layers.fused_moe.router import cpu_router
from vllm.model_executor.layers.mamba.ops.cpu import gdn_attention
from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding
from vllm.platforms import current_platform

_MARK = "sparcom_put_right"


def put_right() -> None:
    """Change vLLM's code, once in a process; nothing on another device than a CPU."""
    if current_platform.is_cpu() and not hasattr(RotaryEmbedding, _MARK):
        setattr(RotaryEmbedding, _MARK, True)
        RotaryEmbedding.forward_cpu = _rotating(RotaryEmbedding.forward_cpu)
        router = cpu_router.CPURouter
        router._compute_routing = _routing(router._compute_routing)
        plain = gdn_attention._cpu_gdn_attention_nonspec
        gdn_attention._cpu_gdn_attention_nonspec = _of_whole_rows(plain)


def _rotating(rotate: Any) -> Any:
    """`RotaryEmbedding.forward_cpu` that reads heads of their own dimension as well.

    query, key: [tokens, heads * head] or [tokens, heads, head].
    """

    def forward_cpu(
        self: Any, positions: Tensor, query: Tensor, key: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        if query.dim() != positions.dim() + 2:
            return rotate(self, positions, query, key)
        flat = query.flatten(-2), None if key is None else key.flatten(-2)
        rotate(self, positions, *flat)  # in place, as callers may expect
        for given, turned in zip((query, key), flat, strict=True):
            if given is not None and turned is not None and not given.is_contiguous():
                given.copy_(turned.view(given.shape))
        return query, key

    return forward_cpu


def _routing(route: Any) -> Any:
    """`CPURouter._compute_routing`, in which experts that are not grouped are one group."""

    def compute_routing(
        self: Any, hidden_states: Tensor, router_logits: Tensor, *others: Any, **more: Any
    ) -> tuple[Tensor, Tensor]:
        plain = not self.use_grouped_topk and self.custom_routing_function is None
        bias = self.e_score_correction_bias
        if plain and (
            self.scoring_func == "sigmoid" or (self.scoring_func == "softmax" and bias is not None)
        ):
            return cpu_router._grouped_topk(
                router_logits,
                self.top_k,
                self.renormalize,
                num_expert_group=1,
                topk_group=1,
                scoring_func=self.scoring_func,
                # Without a bias vLLM's routers leave it to the caller, whatever the device.
                routed_scaling_factor=1.0 if bias is None else self.routed_scaling_factor,
                e_score_correction_bias=bias,
            )
        return route(self, hidden_states, router_logits, *others, **more)

    return compute_routing


def _of_whole_rows(attend: Any) -> Any:
    """`_cpu_gdn_attention_nonspec` that takes a single row of a wider tensor as well.

    mixed_qkv: [tokens, query, key and value]. b, a: [tokens, heads].
    """

    def whole(row: Tensor) -> Tensor:
        return row.clone(memory_format=torch.contiguous_format) if len(row) == 1 else row

    def cpu_gdn_attention(
        layer: Any, metadata: Any, mixed_qkv: Tensor, b: Tensor, a: Tensor, out: Tensor
    ) -> None:
        attend(layer, metadata, whole(mixed_qkv), whole(b), whole(a), out)

    return cpu_gdn_attention
