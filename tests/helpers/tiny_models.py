"""Tiny random models of every supported family, built from their configs."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

_COMMON = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
# Windows shorter than the longest test prompt, so that sliding attention is really at work.
DENSE = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "sliding_window": 8, "attn_logit_softcapping": 5.0},
    "gemma3_text": {"head_dim": 8, "sliding_window": 8},
    "phi3": {},
    "olmo2": {},
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 56, "n_positions": 128},
    "gpt_neox": {},
    "opt": {"ffn_dim": 56, "word_embed_proj_dim": 32},
}
_MOE = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
# Multi-head latent attention; the first layer has a dense MLP.
_LATENT = {
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 2,
    "num_key_value_heads": 4,
}
MOE = {
    "qwen2_moe": {**_MOE, "shared_expert_intermediate_size": 40, "mlp_only_layers": [0]},
    "qwen3_moe": {**_MOE, "head_dim": 8},
    "mixtral": {"num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": 8},
    "olmoe": {"num_experts": 6, "num_experts_per_tok": 2},
    "deepseek_v2": {**_LATENT, "n_shared_experts": 2},
    "deepseek_v3": {**_LATENT, "n_shared_experts": 1},
    "gpt_oss": {"num_local_experts": 6, "num_experts_per_tok": 2, "head_dim": 8},
}


def tiny_config(family: str, **changes: object):
    """The config of a tiny model of a family."""
    if family == "gpt2":
        common = {k: _COMMON[k] for k in ("vocab_size", "bos_token_id", "eos_token_id")}
    else:
        common = _COMMON
    return AutoConfig.for_model(family, **{**common, **(DENSE | MOE).get(family, {}), **changes})


def save_tiny_model(folder: Path, family: str, dtype: torch.dtype, **changes: object) -> Path:
    """Write a tiny random model to a folder as safetensors, and return the folder."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(family, **changes))
    with torch.no_grad():  # weights as large as a trained model's, so that signs really vary
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, parameter.shape[-1] ** -0.5)
    model.to(dtype).save_pretrained(folder)
    return folder
