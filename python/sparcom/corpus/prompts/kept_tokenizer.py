"""A tokenizer as far as prompts are made with it, so that transformers need not be imported.

transformers puts a tokenizer together from its files, by rules for each family of models. What it
made is a description of the `tokenizers` library, from which `encode` makes its encoder in any
case. Kept beside what else making prompts asks of it, it gives the same ids.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class KeptTokenizer:
    """What making prompts asks of a fast tokenizer of transformers, as it answered.

    description: of its backend. chat_template: the one that it uses; None: it has none.
    """

    description: str
    bos_token_id: int | None
    chat_template: str | None
    special_tokens_map: Mapping[str, Any]
    is_fast = True

    @property
    def backend_tokenizer(self) -> "KeptTokenizer":
        """What has `to_str`."""
        return self

    def to_str(self) -> str:
        """The description of the backend."""
        return self.description

    def get_chat_template(self) -> str:
        """The chat template; raises ValueError if there is none."""
        if self.chat_template is None:
            raise ValueError("this tokenizer has no chat template")
        return self.chat_template


def keep_tokenizer(tokenizer: Any) -> str | None:
    """A tokenizer of transformers as JSON, for `kept_tokenizer`; None if it is slow, renders chats
    by code of its own, or has several chat templates of which none is the default."""
    from transformers import PreTrainedTokenizerBase

    plain = type(tokenizer).apply_chat_template is PreTrainedTokenizerBase.apply_chat_template
    if not (tokenizer.is_fast and plain):
        return None
    try:
        template = tokenizer.get_chat_template() if tokenizer.chat_template else None
    except ValueError:
        return None
    kept = {
        "description": tokenizer.backend_tokenizer.to_str(),
        "bos_token_id": tokenizer.bos_token_id,
        "chat_template": template,
        "special_tokens_map": tokenizer.special_tokens_map,
    }
    return json.dumps(kept, default=str)  # as `Renderer` writes what is not of JSON


def kept_tokenizer(text: str) -> KeptTokenizer:
    """The tokenizer of `keep_tokenizer`."""
    return KeptTokenizer(**json.loads(text))
