"""The prompts of a proof: random token ids, and windows short enough for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from sparcom.corpus.prompts.prompts import Prompt

LENGTHS = (37, 13)  # the first is longer than any window
FILLER = 9  # rows of a pass that no prompt fills
_WINDOWS = ("sliding_window", "attention_chunk_size")
_LONGEST_WINDOW = 24
_TOKENS = ("token_id", "token_index")


def make_prompts(config: Any, rows: int, longest: int = 0) -> list[Prompt]:
    """Prompts of random token ids, all counted, from a fixed seed.

    rows: of the embedding. Special tokens are left out: to some models they stand for an image.
    longest: add a prompt that exceeds the model's windows, if it needs no more tokens than this.
    """
    text = config.get_text_config()
    window = max(_windows(text).values(), default=0)
    over = window + LENGTHS[1]
    lengths = [*LENGTHS, over] if LENGTHS[0] < over <= longest else LENGTHS
    parts = {id(c): c for c in (config, text)}.values()
    values = [v for part in parts for k, v in part.to_dict().items() if k.endswith(_TOKENS)]
    special = {i for v in values for i in (v if isinstance(v, list) else [v])}
    ids = torch.tensor([i for i in range(rows) if i not in special])
    generator = torch.Generator().manual_seed(0)
    prompts = []
    for at, length in enumerate(lengths):
        drawn = ids[torch.randint(len(ids), (length,), generator=generator)]
        prompts.append(Prompt(f"proof{at}", tuple(drawn.tolist()), ((0, length),)))
    return prompts


def _windows(text: Any) -> dict[str, int]:
    """The windows that a text config names."""
    found = {name: getattr(text, name, None) for name in _WINDOWS}
    return {name: window for name, window in found.items() if isinstance(window, int)}


@contextmanager
def short_windows(model: PreTrainedModel) -> Iterator[dict[str, int]]:
    """Within the block, windows are at most 24 tokens, so that a short prompt exceeds them.

    A window is a number that the masks of every pass are made from, in both implementations.
    Yields the windows that were shortened, and what they are.
    """
    text = model.config.get_text_config()
    long = {n: v for n, v in _windows(text).items() if v > _LONGEST_WINDOW}
    for name in long:
        setattr(text, name, _LONGEST_WINDOW)
    try:
        yield long
    finally:
        for name, window in long.items():
            setattr(text, name, window)
