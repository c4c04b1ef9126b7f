"""Twenty open models that are in use in 2026, and the model type of their configs.

The choice is ours: the families that hub downloads, serving recipes and interpretability papers
name again and again, one or two of each maker. It is no ranking, and sizes of one class are one.
"""

from typing import NamedTuple


class UsedModel(NamedTuple):
    """name: as its makers call it. model_type: of its config, as transformers reads it."""

    name: str
    model_type: str


USED = (
    UsedModel("Llama 3.3", "llama"),
    UsedModel("Llama 4 Scout, Maverick", "llama4"),
    UsedModel("Qwen2.5", "qwen2"),
    UsedModel("Qwen3", "qwen3"),
    UsedModel("Qwen3 30B-A3B, 235B-A22B", "qwen3_moe"),
    UsedModel("Qwen3-Next", "qwen3_next"),
    UsedModel("Qwen3.5, Qwen3.6", "qwen3_5_moe"),
    UsedModel("gpt-oss", "gpt_oss"),
    UsedModel("DeepSeek V3, R1; Kimi K2", "deepseek_v3"),
    UsedModel("DeepSeek V3.2", "deepseek_v32"),
    UsedModel("DeepSeek V4", "deepseek_v4"),
    UsedModel("GLM-4.5, 4.6, 4.7", "glm4_moe"),
    UsedModel("GLM-5", "glm_moe_dsa"),
    UsedModel("MiniMax-M2", "minimax_m2"),
    UsedModel("MiMo-V2-Flash", "mimo_v2_flash"),
    UsedModel("Gemma 3", "gemma3"),
    UsedModel("Gemma 4", "gemma4"),
    UsedModel("Mistral, Ministral 3", "ministral3"),
    UsedModel("Nemotron-H, Nemotron 3", "nemotron_h"),
    UsedModel("Granite 4", "granitemoehybrid"),
)
