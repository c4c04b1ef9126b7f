"""Attention over prompts that lie one behind the other in a single row of tokens.

Registered with transformers as an attention implementation of its own. Each prompt attends to
itself alone and by a call of its own, so that its result does not depend on the other prompts of
the pass, and nothing is spent on padding. Rows that belong to no prompt come out as zeros.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface

from sparcom.errors import SparcomError

NAME = "sparcom_packed"
_spans: ContextVar[tuple[tuple[int, int], ...]] = ContextVar("sparcom_spans")

# Keywords that models hand to every attention implementation and that change nothing here.
_NEUTRAL = {
    "output_attentions", "output_hidden_states", "use_cache", "cache_position", "position_ids",
    "is_causal", "deterministic", "num_items_in_batch", "logits_to_keep", "return_dict",
    "output_router_logits", "layer_head_mask", "head_mask", "position_embeddings",
}  # fmt: skip


@contextmanager
def prompt_spans(spans: Sequence[tuple[int, int]]) -> Iterator[None]:
    """Within the block, passes hold prompts at these half-open row ranges."""
    token = _spans.set(tuple(spans))
    try:
        yield
    finally:
        _spans.reset(token)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """Causal attention of each prompt to itself.

    query: [1, heads, rows, dim]; key, value: [1, kv heads, rows, dim (value's own)].
    sliding_window: a token sees itself and the `sliding_window - 1` tokens before it.
    softcap: scores become `softcap * tanh(score / softcap)` (Gemma 2).
    s_aux: [heads] logits of the attention sinks (GPT-OSS).
    Returns ([1, rows, heads, dim], None).
    """
    unknown = sorted(k for k, v in others.items() if v is not None and k not in _NEUTRAL)
    if attention_mask is not None:  # not from `_no_mask`: the model has masks of its own
        unknown.append("a mask of its own")
    if unknown:
        raise SparcomError(
            f"{type(module).__name__} hands {', '.join(unknown)} to its attention, which the "
            "packed attention does not know; use the vllm engine for this model"
        )
    out = query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3])
    for start, stop in _spans.get():
        q, k, v = (t[:, :, start:stop] for t in (query, key, value))
        attend = _sdpa if softcap is None and s_aux is None else _explicit
        out[:, start:stop] = attend(q, k, v, scaling, sliding_window, softcap, s_aux)
    return out, None


def _sdpa(q, k, v, scaling, window, softcap, sinks) -> torch.Tensor:
    length = q.shape[2]
    grouped = k.shape[1] != q.shape[1]
    if window is not None and length > window:
        options = {"attn_mask": _visible(length, window, q.device)}
    else:
        options = {"is_causal": length > 1}
    attended = F.scaled_dot_product_attention(q, k, v, scale=scaling, enable_gqa=grouped, **options)
    return attended.transpose(1, 2)


def _explicit(q, k, v, scaling, window, softcap, sinks) -> torch.Tensor:
    """Scores written out, for what SDPA cannot do: soft-capped scores and sinks."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~_visible(q.shape[2], window, q.device), float("-inf")).float()
    if sinks is not None:
        column = sinks.float().reshape(1, -1, 1, 1).expand(1, -1, q.shape[2], 1)
        weights = torch.cat([scores, column], -1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    return (weights.to(v.dtype) @ v).transpose(1, 2)


def _visible(length: int, window: int | None, device: torch.device) -> torch.Tensor:
    """[length, length] bool: which key (column) each query (row) sees."""
    at = torch.arange(length, device=device)
    distance = at[:, None] - at
    return (distance >= 0) & (distance < (window or length))


def _no_mask(*_: object, **__: object) -> None:
    """The mask that models build for this implementation: none, spans say it all."""


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _no_mask)
