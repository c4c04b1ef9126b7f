"""Text to token ids with the exact characters of every token.

Many byte-level tokenizers (Llama 3, GPT-NeoX) trim white space off the offsets that they report: a
token of indentation claims no character at all, and counting by offsets would lose it. The encoder
is therefore a copy of the tokenizer with `trim_offsets` off; ids are the same.
"""

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from tokenizers import Tokenizer

from sparcom.errors import InputError

_CHUNK = 1024  # texts encoded at a time


class Encoded(NamedTuple):
    """Token ids of one text, and the half-open range of characters that each token holds."""

    ids: list[int]
    offsets: list[tuple[int, int]]


def encode(tokenizer, texts: Sequence[str], special: bool) -> Iterator[Encoded]:
    """The texts, encoded in order.

    tokenizer: a fast tokenizer of transformers.
    special: let the tokenizer add its own special tokens; they hold no characters.
    Raises InputError where the tokenizer is a slow one.
    """
    encoder = _encoder(tokenizer)
    for start in range(0, len(texts), _CHUNK):
        chunk = list(texts[start : start + _CHUNK])
        for one in encoder.encode_batch(chunk, add_special_tokens=special):
            yield Encoded(one.ids, one.offsets)


@lru_cache(maxsize=2)
def _encoder(tokenizer) -> Tokenizer:
    if not tokenizer.is_fast:
        raise InputError(
            "tokenizer: a fast one is needed (it maps tokens to characters); this model has only "
            "a slow one"
        )
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    _untrim(description)
    encoder = Tokenizer.from_str(json.dumps(description))
    encoder.no_padding()
    encoder.no_truncation()
    return encoder


def _untrim(part: object) -> None:
    """Set every `trim_offsets` of a tokenizer's description to false."""
    if isinstance(part, dict):
        if "trim_offsets" in part:
            part["trim_offsets"] = False
        for name, inner in part.items():
            if name not in ("vocab", "merges"):
                _untrim(inner)
    elif isinstance(part, list):
        for inner in part:
            _untrim(inner)


def covering(
    offsets: Sequence[tuple[int, int]], start: int, stop: int
) -> tuple[tuple[int, int], ...]:
    """Ranges of tokens that hold at least one of the characters [start, stop)."""
    ranges: list[tuple[int, int]] = []
    for at, (first, last) in enumerate(offsets):
        if max(first, start) < min(last, stop):
            if ranges and ranges[-1][1] == at:
                ranges[-1] = (ranges[-1][0], at + 1)
            else:
                ranges.append((at, at + 1))
    return tuple(ranges)
