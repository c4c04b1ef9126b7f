"""The gated delta rule of vLLM's layers in plain float32, token by token.

vLLM computes it on a CPU in kernels that take bfloat16 alone, so that a model that has it cannot be
compared in float32. In the kernels' place this lets all the rest of such a model be compared there;
beside them it says how far they are from the rule.

A head's state S [key, value] meets each token's query, key, value and gates a, b:

    S = exp(-exp(A_log) * softplus(a + dt_bias)) * S
    S = S + key (value - key S) sigmoid(b)
    out = query S / sqrt(len(query))

with query and key of length 1, after a causal convolution of each channel and silu. One query and
key head serves a run of value heads.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.mamba.ops.cpu import gdn_attention
from vllm.utils.torch_utils import LayerNameType, _resolve_layer_name

_LEAST = 1e-6  # added to a squared length before it divides, as transformers does


class PlainDeltaRule:
    """What `gdn_attention._cpu_gdn_attention_nonspec` computes, with states of its own."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def __call__(
        self, layer: Any, metadata: Any, mixed_qkv: Tensor, b: Tensor, a: Tensor, out: Tensor
    ) -> None:
        """mixed_qkv: [tokens, query, key and value]; b, a: [tokens, heads]; out, written: [tokens,
        heads, value]. The tokens of a sequence that are decoded come first, then new ones."""
        starts = metadata.non_spec_query_start_loc.tolist()
        slots = metadata.non_spec_state_indices_tensor.tolist()
        goes_on = [True] * metadata.num_decodes
        if metadata.num_prefills:
            goes_on += metadata.has_initial_state.tolist()[metadata.num_decodes :]
        for at, known in enumerate(goes_on):
            rows, key = slice(starts[at], starts[at + 1]), (layer.prefix, slots[at])
            state = self._states[key] if known else None
            parts = (x[rows].float() for x in (mixed_qkv, b, a))
            found, self._states[key] = _sequence(layer, *parts, state)
            out[rows] = found.to(out.dtype)


def _sequence(
    layer: Any, x: Tensor, b: Tensor, a: Tensor, state: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """([tokens, heads, value], state after them) of the next tokens of one sequence."""
    weight = getattr(layer.conv1d, "_cpu_unpacked_conv_weight", layer.conv1d.weight)
    weight = weight.float().reshape(x.shape[1], -1)  # [channels, width]
    before, memory = state or (
        torch.zeros(weight.shape[1] - 1, x.shape[1]),
        torch.zeros(layer.num_v_heads, layer.head_k_dim, layer.head_v_dim),
    )
    seen = torch.cat([before, x])
    mixed = sum(seen[at : at + len(x)] * column for at, column in enumerate(weight.T))
    if layer.conv1d.bias is not None:
        mixed = mixed + layer.conv1d.bias.float()
    query, key, value = F.silu(mixed).split([layer.key_dim, layer.key_dim, layer.value_dim], 1)
    query, key = (_unit_heads(layer, each) for each in (query, key))
    value = value.reshape(len(x), layer.num_v_heads, layer.head_v_dim)
    keep = (-layer.A_log.float().exp() * F.softplus(a + layer.dt_bias.float())).exp()
    out = torch.empty_like(value)
    for at in range(len(x)):
        memory = keep[at, :, None, None] * memory
        told = value[at] - torch.einsum("hk,hkv->hv", key[at], memory)
        memory = memory + torch.einsum("hk,hv->hkv", key[at], told * b[at].sigmoid()[:, None])
        out[at] = torch.einsum("hk,hkv->hv", query[at], memory) / layer.head_k_dim**0.5
    return out, (seen[len(x) :], memory)


def _unit_heads(layer: Any, x: Tensor) -> Tensor:
    """[tokens, value heads, key] of length 1, from [tokens, key heads * key]."""
    heads = x.reshape(len(x), layer.num_k_heads, layer.head_k_dim)
    heads = heads / (heads.square().sum(-1, keepdim=True) + _LEAST).sqrt()
    return heads.repeat_interleave(layer.num_v_heads // layer.num_k_heads, 1)


def take_the_kernels_place() -> None:
    """From now on layers that are built compute the plain rule, in any dtype."""
    rule = PlainDeltaRule()

    def core(
        mixed_qkv: Tensor,
        b: Tensor,
        a: Tensor,
        core_attn_out: Tensor,
        layer_name: LayerNameType,
    ) -> None:
        context, name = get_forward_context(), _resolve_layer_name(layer_name)
        if context.attn_metadata is not None:  # else vLLM only measures memory
            layer = context.no_compile_layers[name]
            rule(layer, context.attn_metadata[layer.prefix], mixed_qkv, b, a, core_attn_out)

    gdn_attention.cpu_gdn_attention_core = core


def watch_the_kernel() -> list[float]:
    """From now on the plain rule runs beside vLLM's kernels, on what they take in.

    Returns a list that grows: of each layer and pass the largest distance of a token's output, as a
    share of its size.
    """
    from sparcom.engines.transformers.proof.compare import difference

    rule, kernel, apart = PlainDeltaRule(), gdn_attention._cpu_gdn_attention_nonspec, []

    def both(layer: Any, metadata: Any, x: Tensor, b: Tensor, a: Tensor, out: Tensor) -> None:
        plain = torch.zeros_like(out, dtype=torch.float32)
        rule(layer, metadata, x, b, a, plain)  # first: the kernel may change what it takes in
        kernel(layer, metadata, x, b, a, out)
        tokens = metadata.num_actual_tokens
        apart.append(difference(out[:tokens].flatten(1), plain[:tokens].flatten(1)))

    gdn_attention._cpu_gdn_attention_nonspec = both
    return apart
