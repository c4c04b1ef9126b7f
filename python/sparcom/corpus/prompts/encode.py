"""Text to token ids with the exact characters of every token.

Two things would credit characters to the wrong token. Many byte-level tokenizers (Llama 3,
GPT-NeoX) trim white space off the offsets that they report, so that a token of indentation claims
no character: the encoder is a copy of the tokenizer with `trim_offsets` off. And a special token
that takes the white space beside it (Phi-3's `<|user|>`, by `rstrip`) claims the indentation of the
text after it: its offsets are cut to where its own text stands. Ids are the same in both cases.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from sparcom.errors import InputError

_CHUNK = 1024  # texts encoded at a time


class Encoded(NamedTuple):
    """Token ids of one text, and the half-open range of characters that each token holds."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class _Encoder(NamedTuple):
    """greedy: id -> text of the tokens that take the white space beside them."""

    tokenizer: Tokenizer
    greedy: Mapping[int, str]


def encode(tokenizer: Any, texts: Sequence[str], special: bool) -> Iterator[Encoded]:
    """The texts, encoded in order.

    tokenizer: a fast tokenizer of transformers.
    special: let the tokenizer add its own special tokens; they hold no characters.
    Raises InputError for a slow tokenizer.
    """
    encoder = _encoder(tokenizer)
    for start in range(0, len(texts), _CHUNK):
        chunk = list(texts[start : start + _CHUNK])
        found = encoder.tokenizer.encode_batch(chunk, add_special_tokens=special)
        for text, one in zip(chunk, found, strict=True):
            ids, offsets = one.ids, one.offsets
            if encoder.greedy and not encoder.greedy.keys().isdisjoint(ids):
                offsets = list(_cut(text, ids, offsets, encoder.greedy))
            yield Encoded(ids, offsets)


def _cut(
    text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]], greedy: Mapping[int, str]
) -> Iterator[tuple[int, int]]:
    """The offsets, those of greedy tokens without the white space that they took."""
    for token, (start, stop) in zip(ids, offsets, strict=True):
        own = greedy.get(token)
        at = -1 if own is None else text.find(own, start, stop)
        yield (start, stop) if own is None or at < 0 else (at, at + len(own))


@lru_cache(maxsize=2)
def _encoder(tokenizer: Any) -> _Encoder:
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
    added = encoder.get_added_tokens_decoder().items()
    return _Encoder(encoder, {at: t.content for at, t in added if t.lstrip or t.rstrip})


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
