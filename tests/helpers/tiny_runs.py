"""A tiny model with a tokenizer, and tiny corpora: what a whole run needs."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
POISON = "☠"
"""A token whose embedding is infinite: any prompt with it fails."""
_SPECIAL = ["<pad>", "<s>", "</s>", "<|user|>", "<|system|>", "<|assistant|>", "<|end|>"]
_WORDS = ("sort", "the", "words", "sum", "why", "is", "sea", "blue", "write", "seven", "add", "it")


def save_tokenizer(folder: Path, chat: str | None = CHAT) -> int:
    """Write a byte-level BPE tokenizer; returns the id of the poison, its last token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(_WORDS)] * 4, trainer)
    tokenizer.add_tokens([POISON])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    fast.chat_template = chat
    fast.save_pretrained(folder)
    return len(fast) - 1


def save_tiny_llm(folder: Path, family: str = "llama", **changes: object) -> Path:
    """A random model of a family with its tokenizer, in bfloat16; returns the folder."""
    poison = save_tokenizer(folder)
    # As a special token, it is in no prompt that proves the model; untied, it spoils no logit.
    special = {"vocab_size": poison + 1, "sep_token_id": poison, "tie_word_embeddings": False}
    save_tiny_model(folder, family, torch.bfloat16, **special | changes)
    weights = load_file(folder / "model.safetensors")
    embedding = next(
        name for name in weights if name.endswith(("embed_tokens.weight", "wte.weight"))
    )
    weights[embedding][poison] = float("inf")  # equals itself, as no NaN does
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def records(n: int, categories: tuple[str, ...] = ("QA", "MATH", "SUM")) -> list[dict]:
    """n instructions of different lengths, the categories in turn."""
    return [
        {
            "id": f"i{k:02}",
            "category": categories[k % len(categories)],
            "source": ("human", "ai")[k % 2],
            "instruction": " ".join(_WORDS[(k * j) % len(_WORDS)] for j in range(1, 4 + k % 9)),
        }
        for k in range(n)
    ]


def write_corpus(path: Path, rows: list[dict]) -> Path:
    """Write records as JSONL; returns the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path
