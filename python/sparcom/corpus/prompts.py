"""From instructions to token ids, and which of the tokens are counted.

A template wraps the user's text (`model`: the tokenizer's own chat template; `from:MODEL`: that of
another model; `plain`: a fixed text frame; `raw`: nothing). The scope then says which tokens are
counted. In scope `instruction` these are the tokens that hold at least one character of the user's
own text, found by character offsets; everything that the wrapper adds is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sparcom.corpus.schema import Instruction
from sparcom.errors import InputError

SCOPES = ("instruction", "prompt")
PLAIN = "Instruction:\n{text}\n\nResponse:\n"
# Stands for the user's text while the frame around it is found; no template rewrites letters.
_MARK = "SPARCOMxUSERxTEXT"


@dataclass(frozen=True)
class Prompt:
    """What the engine is given for one instruction.

    id: of the instruction.
    token_ids: all tokens of the rendered prompt.
    counted: half-open token ranges that are counted, ascending and disjoint.
    truncated: whether tokens were cut to fit the model's context.
    """

    id: str
    token_ids: tuple[int, ...]
    counted: tuple[tuple[int, int], ...]
    truncated: bool = False

    @property
    def n_counted(self) -> int:
        """T: the number of counted tokens."""
        return sum(stop - start for start, stop in self.counted)


@dataclass(frozen=True)
class Frame:
    """What a template puts around the user's text.

    strips: the template trims white space off the text's ends (LLaMA-2's does).
    special: the tokenizer adds its own special tokens (BOS), since the frame holds none.
    """

    prefix: str
    suffix: str
    strips: bool
    special: bool


def make_frame(template: str, tokenizer, system: str | None = None, donor=None) -> Frame:
    """The frame of a template.

    template: "model" | "plain" | "raw" | "from:MODEL".
    tokenizer: the model's own; donor: that of MODEL where the template is `from:`.
    system: system prompt; None leaves the template's default.
    Raises InputError where there is no chat template, or it changes the user's text.
    """
    if template in ("plain", "raw"):
        frame = PLAIN if template == "plain" else "{text}"
        if system:
            frame = f"{system}\n\n{frame}"
        prefix, suffix = frame.split("{text}")
        return Frame(prefix, suffix, strips=False, special=True)
    if template != "model" and not template.startswith("from:"):
        raise InputError(
            f"template: expected model, plain, raw or from:MODEL, got {template!r}"
        )
    owner = tokenizer if template == "model" else donor
    if not getattr(owner, "chat_template", None):
        raise InputError(
            f"template {template}: this tokenizer has no chat template (a base model has none); "
            "use template plain, or from:MODEL with the chat model's name"
        )

    def render(text: str) -> str:
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": text})
        try:
            return owner.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template is a program of its own: any error is its verdict
            raise InputError(f"template {template}: {type(error).__name__}: {error}") from error

    prefix, mark, suffix = render(_MARK).partition(_MARK)
    if not mark:
        raise InputError(f"template {template}: the chat template drops the user's text")
    spaced = render(f" {_MARK} ")
    if spaced == f"{prefix} {_MARK} {suffix}":
        strips = False
    elif spaced == prefix + _MARK + suffix:
        strips = True
    else:
        raise InputError(f"template {template}: the chat template rewrites the user's text")
    return Frame(prefix, suffix, strips, special=False)


def make_prompts(
    instructions: Sequence[Instruction],
    tokenizer,
    *,
    frame: Frame,
    scope: str = "instruction",
    max_tokens: int | None = None,
    context: int | None = None,
    truncate: bool = False,
) -> list[Prompt]:
    """The prompts of instructions, in their order.

    tokenizer: a fast tokenizer of transformers (offsets are needed).
    scope: "instruction" (the user's own tokens) or "prompt" (all tokens).
    max_tokens: L; only the first L counted tokens of each instruction stay counted.
    context: the model's longest sequence in tokens; a longer prompt is an error, or is cut from
        the right where `truncate` is set.
    Raises InputError naming the instruction.
    """
    if scope not in SCOPES:
        raise InputError(f"scope: expected {' or '.join(SCOPES)}, got {scope!r}")
    if max_tokens is not None and max_tokens < 1:
        raise InputError(f"max-tokens: must be at least 1, got {max_tokens}")
    if not tokenizer.is_fast:
        raise InputError("tokenizer: a fast one is needed (it maps tokens to characters); "
                         "this model has only a slow one")
    texts = [item.text.strip() if frame.strips else item.text for item in instructions]
    encoded = tokenizer(
        [frame.prefix + text + frame.suffix for text in texts],
        add_special_tokens=frame.special,
        return_offsets_mapping=True,
        return_attention_mask=False,
    )
    prompts = []
    for item, text, ids, offsets in zip(
        instructions, texts, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        cut = context is not None and len(ids) > context
        if cut and not truncate:
            raise InputError(
                f"instruction {item.id}: {len(ids)} tokens, but the model reads at most {context}; "
                "shorten it, or cut such prompts with --truncate"
            )
        ids = ids[:context] if cut else ids
        if scope == "prompt":
            counted = ((0, len(ids)),)
        else:
            start = len(frame.prefix)
            counted = _overlapping(offsets[: len(ids)], start, start + len(text))
        counted = _first(counted, max_tokens)
        if not any(stop > start for start, stop in counted):
            raise InputError(f"instruction {item.id}: no token of it is left to count")
        prompts.append(Prompt(item.id, tuple(ids), counted, cut))
    return prompts


def _overlapping(
    offsets: Sequence[tuple[int, int]], start: int, stop: int
) -> tuple[tuple[int, int], ...]:
    """Ranges of tokens that hold at least one of the characters [start, stop)."""
    ranges: list[tuple[int, int]] = []
    for at, (first, last) in enumerate(offsets):
        if first < last and first < stop and last > start:
            if ranges and ranges[-1][1] == at:
                ranges[-1] = (ranges[-1][0], at + 1)
            else:
                ranges.append((at, at + 1))
    return tuple(ranges)


def _first(
    ranges: tuple[tuple[int, int], ...], limit: int | None
) -> tuple[tuple[int, int], ...]:
    """The ranges cut to their first `limit` tokens."""
    if limit is None:
        return ranges
    kept = []
    for start, stop in ranges:
        stop = min(stop, start + limit)
        if stop > start:
            kept.append((start, stop))
            limit -= stop - start
    return tuple(kept)
