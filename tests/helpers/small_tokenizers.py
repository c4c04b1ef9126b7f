"""Small tokenizers of the kinds that real models have, trained in a moment, without a hub."""

import json
from functools import cache

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CHAT = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
STRIPPING_CHAT = "<s>[INST] {{ messages[-1]['content'] | trim }} [/INST]"
_SPECIAL = ["<s>", "</s>", "<|start|>", "<|end|>"]
_TEXT = [
    "Write a short poem about the sea.\n\n    def add(a, b):\n        return a + b\n",
    "Sort these words into two groups: apple, spade, pear, rake. What is 17 * 23?",
    "naïve café, 你好世界, שלום, 👩‍👩‍👧 family; user assistant system [INST] [/INST]",
]
KINDS = ("byte-level", "byte-level-trimming", "byte-level-nfc", "metaspace-bytes")


@cache
def small_tokenizer(kind: str = "byte-level", chat: str = CHAT) -> PreTrainedTokenizerFast:
    """A tokenizer of one of `KINDS`, with <s> and </s>; raw text is given <s> in front."""
    tokenizer = _metaspace() if kind == "metaspace-bytes" else _byte_level(kind)
    bos = tokenizer.token_to_id("<s>")
    template = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    if kind == "byte-level-trimming":  # as Llama 3 has it
        trim = processors.ByteLevel(trim_offsets=True)
        tokenizer.post_processor = processors.Sequence([trim, template])
    else:
        tokenizer.post_processor = template
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<s>"
    )
    fast.chat_template = chat
    return fast


@cache
def greedy_tokenizer(side: str) -> PreTrainedTokenizerFast:
    """A tokenizer whose <|start|> and <|end|> take the white space on one side of them.

    side: "rstrip" (as Phi-3 has it) or "lstrip".
    """
    plain = small_tokenizer()
    description = json.loads(plain.backend_tokenizer.to_str())
    for token in description["added_tokens"]:
        token[side] = token["content"] in ("<|start|>", "<|end|>")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(description)), bos_token="<s>"
    )
    fast.chat_template = "{% for m in messages %}<|start|>{{ m['content'] }}<|end|>{% endfor %}"
    return fast


def _byte_level(kind: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if kind == "byte-level-nfc":
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT * 4, trainer)
    return tokenizer


def _metaspace() -> Tokenizer:
    """As LLaMA 2 has it: a blank in front, blanks as U+2581, unknown characters as bytes."""
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=_SPECIAL, show_progress=False)
    tokenizer = Tokenizer(models.BPE(unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator([text for text in _TEXT if text.isascii()], trainer)
    description = json.loads(tokenizer.to_str())
    vocabulary = description["model"]["vocab"]
    for byte in range(256):
        vocabulary.setdefault(f"<0x{byte:02X}>", len(vocabulary))
    description["model"]["byte_fallback"] = True
    description["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer
