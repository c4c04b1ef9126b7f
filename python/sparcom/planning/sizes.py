"""How much memory and disk a model's counts take, and its weights and KV cache, from its shapes."""

import re
from typing import TYPE_CHECKING, Any

from sparcom.components import ComponentSpace

if TYPE_CHECKING:
    from torch import nn

DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
_ROW_BYTES = 4096  # an instruction's row beside its counts and sets: prompt, ids, metadata
# Layers whose state does not grow with the tokens have "attention" in their names all the same.
_ATTENTION = re.compile("Attention|Attn")
_CONSTANT_STATE = re.compile("Linear|Lightning|Mamba|DeltaNet")


def stored_bytes(space: ComponentSpace, retain: str, signs: bool = False) -> int:
    """Bytes of disk that an instruction takes, about: a bit a component for its sets, and a byte
    a count once they are compressed (run-directory.md)."""
    components = space.neurons + space.experts
    counts = components + (2 * space.neurons if signs else 0)
    each = {"counts": components // 8 + counts, "sets": components // 8, "profile": 0}
    return each[retain] + _ROW_BYTES


def count_bytes(space: ComponentSpace, slots: int) -> int:
    """Bytes of the count buffers: `slots * (neurons + bins) * 4`, as the recorder lays them out."""
    return slots * (space.neurons + sum(site.bins for site in space.sites)) * 4


def weight_bytes(parameters: int, dtype: str, own: str) -> int:
    """Bytes of the weights in memory.

    dtype: of the engine options; own: that of the weights, which "auto" stands for.
    """
    return parameters * DTYPE_BYTES.get(own if dtype == "auto" else dtype, 2)


def attention_layers(layers: "list[tuple[str, nn.Module]]") -> int:
    """How many decoder layers keep keys and values of every token."""
    return sum(
        any(
            _ATTENTION.search(name) and not _CONSTANT_STATE.search(name)
            for name in {type(module).__name__ for module in layer.modules()}
        )
        for _, layer in layers
    )


def kv_bytes_of_token(config: Any, layers: int, dtype: str) -> int:
    """Bytes that a token takes in the KV cache: `2 * layers * kv_heads * head_dim * bytes`, or, for
    latent attention, `layers * (kv_lora_rank + qk_rope_head_dim) * bytes`.

    config: of the text model. layers: those with attention. Sliding windows need less.
    """
    own = str(getattr(config, "dtype", None)).removeprefix("torch.")
    width = weight_bytes(1, dtype, own)
    if rank := getattr(config, "kv_lora_rank", None):
        return layers * (rank + (getattr(config, "qk_rope_head_dim", None) or 0)) * width
    heads = _first(config, "num_attention_heads", "n_head")
    hidden = _first(config, "hidden_size", "n_embd")
    head_dim = _first(config, "head_dim") or (hidden // heads if heads else 0)
    return 2 * layers * (_first(config, "num_key_value_heads") or heads) * head_dim * width


def _first(config: Any, *names: str) -> int:
    found = (getattr(config, name, None) for name in names)
    return next((value for value in found if isinstance(value, int)), 0)
