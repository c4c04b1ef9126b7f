"""Rotary embeddings whose frequencies depend on the longest position of a pass.

Two kinds do in transformers: `dynamic` and `longrope`. A long prompt would change the others of its
pass, and `dynamic` keeps the frequencies of the longest pass so far, so that the order of prompts
would matter. Prompts beyond the original length therefore have passes of their own, and every pass
starts from the frequencies that the model was loaded with.
"""

from typing import Any

from torch import nn

_DEPENDENT = ("dynamic", "longrope")


def solo_above(config: Any) -> int | None:
    """Length above which a prompt needs a pass of its own; None for most models."""
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    kinds = [rope, *(v for v in rope.values() if isinstance(v, dict))]  # one for each layer type
    lengths = [
        kind.get("original_max_position_embeddings") or text.max_position_embeddings
        for kind in kinds
        if kind.get("rope_type") in _DEPENDENT
    ]
    return min(lengths, default=None)


def reset(model: nn.Module) -> None:
    """Give every rotary embedding the frequencies that it was loaded with."""
    for module in model.modules():
        if not hasattr(module, "original_max_seq_len"):
            continue
        for name in [n for n in vars(module) if n.endswith("max_seq_len_cached")]:
            setattr(module, name, module.original_max_seq_len)
        for name, buffer in list(module.named_buffers(recurse=False)):
            if name.endswith("original_inv_freq"):
                # A copy: transformers 5.24 writes the frequencies of a pass into the buffer.
                now = name.replace("original_inv_freq", "inv_freq")
                module.register_buffer(now, buffer.clone(), persistent=False)
