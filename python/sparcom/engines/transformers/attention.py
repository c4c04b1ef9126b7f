"""Attention over prompts that lie one behind the other in a single row of tokens.

Two implementations are registered with transformers. `sparcom_packed` computes the attention of
each prompt by a call of its own, so that its result does not depend on the other prompts of the
pass, and nothing is spent on padding. Which keys a query sees is what the model itself says: its
own mask function is evaluated for each prompt. `sparcom_reference` is transformers' own eager
attention of the model's class, computed in float32; the proof compares with it.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask, sdpa_mask

from sparcom.errors import SparcomError

NAME = "sparcom_packed"
REFERENCE = "sparcom_reference"

# Keywords that models hand to every attention implementation and that change nothing here. A
# sliding window is in the mask already: eager attention, too, takes it from there.
_NEUTRAL = {
    "output_attentions", "output_hidden_states", "use_cache", "cache_position", "position_ids",
    "is_causal", "deterministic", "num_items_in_batch", "logits_to_keep", "return_dict",
    "output_router_logits", "layer_head_mask", "head_mask", "position_embeddings",
    "sliding_window",
}  # fmt: skip


class _Packing:
    """Where the prompts of the running pass lie, and which of its masks are plainly causal."""

    def __init__(self, spans: Sequence[tuple[int, int]]) -> None:
        self.spans = tuple(spans)
        self._known: dict[int, tuple[torch.Tensor, list[torch.Tensor | None]]] = {}

    def blocks(self, mask: torch.Tensor) -> list[torch.Tensor | None]:
        """The part of a mask that concerns each prompt; None if that is plainly causal."""
        if id(mask) not in self._known:
            parts = [mask[:, :, start:stop, start:stop] for start, stop in self.spans]
            self._known[id(mask)] = mask, [None if _is_causal(p) else p for p in parts]
        return self._known[id(mask)][1]


_packing: ContextVar[_Packing] = ContextVar("sparcom_packing")


@contextmanager
def prompt_spans(spans: Sequence[tuple[int, int]]) -> Iterator[None]:
    """Within the block, passes hold prompts at these half-open row ranges."""
    token = _packing.set(_Packing(spans))
    try:
        yield
    finally:
        _packing.reset(token)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """Attention of each prompt to itself; rows that belong to no prompt come out as zeros.

    query: [1, heads, rows, dim]; key, value: [1, kv heads, rows, dim (value's own)].
    attention_mask: [1, 1 or heads, rows, rows], bool (True: seen) or added to the scores; None:
        causal.
    softcap: scores become `softcap * tanh(score / softcap)` (Gemma 2).
    s_aux: [heads] logits of the attention sinks (GPT-OSS).
    Returns ([1, rows, heads, dim], None).
    Raises SparcomError naming what the model hands over and this function does not know.
    """
    packing, rows = _packing.get(), query.shape[2]
    unknown = sorted(k for k, v in others.items() if v is not None and k not in _NEUTRAL)
    if key.shape[2] != rows:
        unknown.append(f"{key.shape[2]} keys for {rows} queries")
    if attention_mask is not None and list(attention_mask.shape[2:]) != [rows, rows]:
        unknown.append(f"a mask of {list(attention_mask.shape)}")
    if unknown:
        raise SparcomError(
            f"{type(module).__name__} hands {', '.join(unknown)} to its attention, which the "
            "packed attention does not know"
        )
    masks: list[torch.Tensor | None] = [None] * len(packing.spans)
    if attention_mask is not None:
        masks = packing.blocks(attention_mask)
    out = query.new_zeros(1, rows, query.shape[1], value.shape[3])
    attend = _sdpa if softcap is None and s_aux is None else _explicit
    for (start, stop), mask in zip(packing.spans, masks, strict=True):
        q, k, v = (t[:, :, start:stop] for t in (query, key, value))
        out[:, start:stop] = attend(q, k, v, mask, scaling, softcap, s_aux)
    return out, None


def _sdpa(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    grouped = k.shape[1] != q.shape[1]
    attended = F.scaled_dot_product_attention(
        q, k, v, mask, is_causal=mask is None and q.shape[2] > 1, scale=scaling, enable_gqa=grouped
    )
    return attended.transpose(1, 2)


def _explicit(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Scores written out, for what SDPA cannot do: soft-capped scores and sinks."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    mask = _causal(q.shape[2], q.device) if mask is None else mask
    hidden = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    scores = hidden.float()
    if sinks is not None:
        column = sinks.float().reshape(1, -1, 1, 1).expand(1, -1, q.shape[2], 1)
        weights = torch.cat([scores, column], -1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    return (weights.to(v.dtype) @ v).transpose(1, 2)


def packed_mask(
    batch_size: int, q_length: int, kv_length: int, **others: object
) -> torch.Tensor | None:
    """The model's own mask, evaluated for each prompt of the pass.

    others: what transformers hands to every mask implementation; its `mask_function` says which
        keys a query sees, by their rows in the pass.
    Returns [1, 1, rows, rows] bool; None if every prompt's part is plainly causal.
    """
    others |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    blocks = []
    for start, stop in _packing.get().spans:
        length = stop - start
        place = {"q_offset": start, "kv_offset": start}
        blocks.append(sdpa_mask(batch_size, length, length, **{**others, **place}))
    if all(_is_causal(block) for block in blocks):
        return None
    mask = blocks[0].new_zeros(batch_size, 1, q_length, kv_length)
    for (start, stop), block in zip(_packing.get().spans, blocks, strict=True):
        mask[:, :, start:stop, start:stop] = block
    return mask


def _causal(length: int, device: torch.device) -> torch.Tensor:
    """[length, length] bool: each query (row) sees itself and the keys before it."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def _is_causal(mask: torch.Tensor) -> bool:
    """True if a mask [1, 1, length, length] says nothing but "itself and what lies before"."""
    if mask.dtype != torch.bool or mask.shape[1] != 1:
        return False
    return torch.equal(mask[0, 0], _causal(mask.shape[2], mask.device))


def reference_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *arguments: object,
    **options: object,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The eager attention of the module's own file, on float32 copies of what it is given.

    In 16 bits, eager attention rounds its scores: one of 50 may be off by an eighth, and its weight
    by an eighth of itself. Fused attention keeps them in float32, and so does this.
    """
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if eager is None:
        raise SparcomError(f"{type(module).__name__} has no eager attention of its own")
    wide = [t.float() for t in (query, key, value)]
    mask = attention_mask
    if mask is not None and mask.is_floating_point():
        mask = mask.float()
    out, weights = eager(module, *wide, mask, *arguments, **options)
    return out.to(query.dtype), weights


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, packed_mask)
AttentionInterface.register(REFERENCE, reference_attention)
AttentionMaskInterface.register(REFERENCE, eager_mask)
