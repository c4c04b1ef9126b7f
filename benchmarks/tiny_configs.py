"""The config of a tiny model of any causal language model class that transformers has.

A class's own default config is shrunk by the names of its keys: vocabulary 128, hidden size 64, 4
layers, windows of 8. What a name cannot say is in `SPECIAL`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

LAYERS, VOCABULARY = 4, 128
_SIZES = {
    VOCABULARY: "vocab_size vocab_size_per_layer_input n_vocab",
    64: "hidden_size d_model n_embd dim word_embed_proj_dim embedding_size emb_dim lru_width",
    96: "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim n_inner ffn_hidden_size d_inner "
    "d_ff dff dense_intermediate_size shared_intermediate_size intermediate_size_mlp",
    LAYERS: "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers "
    "num_attention_heads n_head n_heads decoder_attention_heads encoder_attention_heads "
    "num_heads linear_num_value_heads mamba_n_heads mamba_num_heads index_topk time_step_rank",
    2: "num_key_value_heads n_kv_heads num_kv_heads kv_n_heads swa_num_key_value_heads "
    "num_global_key_value_heads num_experts_per_tok moe_k moe_topk top_k_experts moe_top_k top_k "
    "num_experts_per_token linear_num_key_heads index_n_heads eos_token_id decoder_start_token_id "
    "forced_eos_token_id",
    16: "head_dim attention_head_dim global_head_dim swa_head_dim v_head_dim kv_lora_rank "
    "linear_key_head_dim linear_value_head_dim mamba_d_state ssm_state_size state_size "
    "index_head_dim hidden_size_per_layer_input",
    8: "num_experts n_routed_experts num_local_experts moe_num_experts qk_nope_head_dim "
    "qk_rope_head_dim sliding_window attention_chunk_size window_size laurel_rank "
    "attention_window_size",
    24: "q_lora_rank",
    48: "moe_intermediate_size expert_intermediate_size expert_ffn_hidden_size",
    80: "shared_expert_intermediate_size moe_shared_expert_intermediate_size",
    1: "n_groups mamba_n_groups n_shared_experts n_group topk_group first_k_dense_replace "
    "num_dense_layers bos_token_id",
    0: "pad_token_id",
    256: "max_position_embeddings n_positions n_ctx max_target_positions max_source_positions",
    32: "mamba_d_head mamba_head_dim",
}
_SIZE_OF = {name: size for size, names in _SIZES.items() for name in names.split()}
_WIDE = {
    "num_attention_heads": 2, "n_head": 2, "n_heads": 2, "num_heads": 2, "head_dim": 32,
    "decoder_attention_heads": 2,
}  # fmt: skip
# Keys that a class leaves at None, for a size that is derived from another or must be given.
_SET_IF_NONE = {
    "head_dim", "bos_token_id", "eos_token_id", "pad_token_id", "intermediate_size",
    "num_key_value_heads", "n_inner", "ffn_dim", "num_experts_per_tok", "moe_topk", "n_group",
    "topk_group", "n_shared_experts", "num_experts", "n_routed_experts",
}  # fmt: skip
_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [3, 3, 2]}
SPECIAL: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE,
                                                "sliding_attention": _ROPE}},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8}},
    "falcon_h1": {"mamba_d_ssm": 128},
    "gemma3n_text": {"num_kv_shared_layers": 1, "activation_sparsity_pattern": [0.0] * LAYERS},
    "glm4v_text": {"rope_parameters": _ROPE},
    "glm4v_moe_text": {"rope_parameters": {**_ROPE, "partial_rotary_factor": 0.5,
                                           "mrope_section": [2, 1, 1]}},
    "gpt_bigcode": {"num_key_value_heads": 1},  # what its class makes of multi_query
    "gptj": {"rotary_dim": 8},
    "codegen": {"rotary_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "llama4_text": {"num_experts_per_tok": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "longcat_flash": {"head_dim": 8, "zero_expert_num": 4},
    "mamba2": {"head_dim": 32, "num_heads": 4},
    "qwen2_vl_text": {"rope_parameters": _ROPE},
    "qwen2_5_vl_text": {"rope_parameters": _ROPE},
    "qwen4_exp_text": {"indexer_budget": 16, "indexer_compress_ratio": 4, "indexer_n_heads": 2,
                       "indexer_kv_heads": 1, "indexer_head_dim": 16, "hc_lowrank": 8,
                       "ngram_vocab_size_base": 512, "ple_embed_dim": 16},
    "zamba": {"layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zaya": {"num_experts_per_tok": 1},
    "reformer": {"axial_pos_embds": False},
}  # fmt: skip
# What vLLM reads beside: keys that configs of the hub have and transformers' classes do not, by the
# hub's names, and sizes that vLLM's kernels for CPU are made for.
_LATENT = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
           "v_head_dim": 128, "q_lora_rank": 24}  # fmt: skip
_DELTA = {"linear_key_head_dim": 128, "linear_value_head_dim": 128}
_UNGROUPED = {"topk_method": "noaux_tc", "scoring_func": "sigmoid"}
FOR_VLLM: dict[str, dict[str, Any]] = {
    "afmoe": {"score_func": "sigmoid", "route_norm": True, "n_group": 1, "topk_group": 1},
    "deepseek_v2": {**_LATENT, "scoring_func": "softmax"},
    "deepseek_v3": {**_LATENT, **_UNGROUPED},
    "deepseek_v4": {"head_dim": 512, "index_head_dim": 128, "topk_method": "noaux_tc",
                    "o_groups": 2},
    "falcon": {"ffn_hidden_size": 256},  # vLLM knows four times the hidden size alone
    "gemma4": {"vision_config": {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16,
                                 "num_hidden_layers": 2, "num_attention_heads": 4,
                                 "num_key_value_heads": 4}},
    "gemma4_unified": {"vision_config": {"mm_embed_dim": 64, "mm_posemb_size": 16,
                                         "output_proj_dims": 64}},
    "gemma4_text": {"enable_moe_block": True, "num_experts": 8, "top_k_experts": 2,
                    "moe_intermediate_size": 48},
    # vLLM takes the keys of the last layers that have their own to be those of a window, then not.
    "gemma3n_text": {"num_kv_shared_layers": 2},
    "glm4_moe": {"head_dim": 32},
    "glm4_moe_lite": {**_LATENT, **_UNGROUPED, "first_k_dense_replace": 1},
    "hy_v3": {"first_k_dense_replace": 1, "expert_hidden_dim": 48, "route_norm": True,
              "qk_norm": True},
    "lfm2": {"block_dim": 64, "conv_dim": 64},
    "llama4_text": {"attention_chunk_size": 128},  # whole blocks of the KV cache
    "longcat_flash": {**_LATENT, "head_dim": 64, "zero_expert_type": "identity"},
    "mimo_v2_flash": {"hybrid_layer_pattern": [0, 1] * 2, "moe_layer_freq": [0, 1, 1, 1],
                      "num_key_value_heads": 1, "swa_num_attention_heads": 2,
                      "swa_num_key_value_heads": 2, "swa_head_dim": 32, "swa_v_head_dim": 16,
                      "sliding_window_size": 8, "layernorm_epsilon": 1e-5,
                      "add_swa_attention_sink_bias": True, "rope_theta": 5000000.0,
                      "swa_rope_theta": 10000.0, "partial_rotary_factor": 0.334},
    "minicpm3": {"qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64},
    "minimax_m2": {"rotary_dim": 16, "use_routing_bias": True, "scoring_func": "sigmoid"},
    "nemotron_h": {"time_step_min": 1e-9},  # transformers raises time steps to it, vLLM does not
    "qwen3_5_moe_text": _DELTA,
    "qwen3_5_text": _DELTA,
    "qwen3_next": _DELTA,
}  # fmt: skip


# vLLM's gated delta rule for CPU takes bfloat16 alone.
BFLOAT16 = {"qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_5", "qwen3_5_moe"}


def tiny_config(family: str, *, for_vllm: bool = False, **changes: Any) -> PreTrainedConfig:
    """The config of a tiny model of a family, with changes.

    for_vllm: two heads of 32 instead of four of 16, which vLLM's attention does not have, and
        `FOR_VLLM`.
    Raises whatever the class raises for a config that it does not accept.
    """
    kind = CONFIG_MAPPING[family]

    def special(name: str) -> dict[str, Any]:
        return {**SPECIAL.get(name, {}), **(FOR_VLLM.get(name, {}) if for_vllm else {})}

    default = kind()
    sizes = _SIZE_OF | _WIDE if for_vllm else _SIZE_OF
    values = _shrunk(default.to_dict(), sizes)
    for name in kind.sub_configs:
        part = getattr(default, name, None)
        if part is not None:
            values[name] = {**_shrunk(part.to_dict(), sizes), **special(part.model_type)}
            if part.model_type:
                values[name]["model_type"] = part.model_type
    return kind(**{**values, **special(family), **changes})


def write_as_on_the_hub(folder: Path) -> None:
    """Rewrite a saved model by the names that checkpoints of the hub have, where vLLM knows no
    others: transformers writes DeepSeek-V4's layers, and some of its weights, by names of its own.
    """
    file = folder / "config.json"
    values = json.loads(file.read_text("utf-8"))
    if values["model_type"] == "deepseek_v4":
        rates = {**values["compress_rates"], "sliding_attention": 0}
        values["compress_ratios"] = [rates[kind] for kind in values.pop("layer_types")]
        values["num_hash_layers"] = values.pop("mlp_layer_types").count("hash_moe")
        values["qk_rope_head_dim"] = int(values["head_dim"] * values["partial_rotary_factor"])
        file.write_text(json.dumps(values), "utf-8")
        weights = folder / "model.safetensors"
        save_file({_on_the_hub(name): w for name, w in load_file(weights).items()}, weights)


def _on_the_hub(name: str) -> str:
    """DeepSeek-V4's name of a weight that transformers saved."""
    for own, hub in (
        ("embed_tokens.", "embed."),
        ("lm_head.", "head."),
        (".hc_head.hc", ".hc_head"),
        (".attn.norm.", ".attn.kv_norm."),
    ):
        name = name.replace(own, hub)
    return name.removeprefix("model.")


def _shrunk(values: dict[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """The keys of a config that are made smaller."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        if name in ("head_dim", "num_key_value_heads") and "qk_rope_head_dim" in values:
            if name == "num_key_value_heads":  # latent attention: as many as queries
                out[name] = sizes["num_attention_heads"]
        elif name == "layer_types" and isinstance(value, list):
            out[name] = (list(dict.fromkeys(value)) * LAYERS)[:LAYERS]
        elif name == "is_decoder":  # of classes that are encoders by default
            out[name] = True
        elif name not in sizes or isinstance(value, bool):
            continue
        elif isinstance(value, list):
            out[name] = [2] if name == "eos_token_id" else [sizes[name]] * LAYERS
        elif value is not None or name in _SET_IF_NONE:
            out[name] = sizes[name]
    return out
