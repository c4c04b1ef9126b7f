"""What is known of a model before a weight is read, and what its prompts must keep to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sparcom.components import ComponentSpace
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.errors import InputError

NO_HEAD = "its weights hold no language model head"


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model before a weight is read.

    model: how messages call it. vocabulary: rows of the embedding.
    layers: decoder layers, with an FFN or without one.
    head: it has a language model head, which losses and written answers need.
    config: of transformers; None: of facts that were kept.
    """

    model: str
    space: ComponentSpace
    vocabulary: int
    layers: int
    head: bool
    config: Any = field(default=None, compare=False)

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Raise InputError for prompts that the model cannot read or answer as they ask."""
        check_token_ids(self.model, prompts, self.vocabulary)
        if not self.head and any(p.generate for p in prompts):
            raise InputError(f"model {self.model}: {NO_HEAD}; --generate needs one")


def check_token_ids(model: str, prompts: Sequence[Prompt], vocabulary: int) -> None:
    """Raise InputError for token ids that the embedding has no row for."""
    for prompt in prompts:
        highest, lowest = max(prompt.token_ids), min(prompt.token_ids)
        if highest >= vocabulary or lowest < 0:
            raise InputError(
                f"model {model}: instruction {prompt.id} has the token id "
                f"{highest if highest >= vocabulary else lowest}, but the model's embedding has "
                f"{vocabulary} rows; the tokenizer is another model's, or tokens were added to it"
            )
