"""From instructions to token ids, and which of the tokens are counted.

A template (`chat_template`) wraps the user's text; the scope says which tokens are counted:

    instruction   those that hold at least one character of the user's own text
    prompt        all of the rendered prompt
    response      those of the answer: the reference, fed after the prompt (teacher-forced), or what
                  the model itself writes (`generate`)
    all           prompt and response
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace

from sparcom.corpus.prompts.chat_template import PromptTemplate
from sparcom.corpus.prompts.encode import Encoded, covering, encode
from sparcom.corpus.schema import Instruction
from sparcom.errors import InputError

SCOPES = ("instruction", "prompt", "response", "all")
_ANSWERED = ("response", "all")

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Prompt:
    """What the engine is given for one instruction.

    id: of the instruction.
    token_ids: all tokens that are read: the rendered prompt, and the reference where it is fed.
    counted: half-open token ranges of them that are counted, ascending and disjoint.
    truncated: whether tokens were cut to fit the model's context.
    generate: how many tokens of the model's own answer are counted at most; 0: none is written.
        A token counts when it is read: the last one that is written never is, so one more is
        written than is counted.
    """

    id: str
    token_ids: tuple[int, ...]
    counted: tuple[tuple[int, int], ...]
    _: KW_ONLY
    truncated: bool = False
    generate: int = 0

    @property
    def n_counted(self) -> int:
        """T without generated tokens, whose number only the engine knows."""
        return sum(stop - start for start, stop in self.counted)


def make_prompts(
    instructions: Sequence[Instruction],
    tokenizer,
    *,
    template: PromptTemplate,
    scope: str = "instruction",
    max_tokens: int | None = None,
    context: int | None = None,
    truncate: bool = False,
    generate: int = 0,
) -> list[Prompt]:
    """The prompts of instructions, in their order.

    tokenizer: a fast tokenizer of transformers (offsets are needed).
    scope: one of `SCOPES`.
    max_tokens: L; only the first L counted tokens of each instruction stay counted.
    context: the model's longest sequence in tokens; a longer prompt is an error, or is cut from
        the right where `truncate` is set.
    generate: tokens of the model's own answer that are counted at most, for scopes response and
        all; 0 feeds it the reference instead.
    Raises InputError naming the instruction.

    >>> template = make_template("model", tokenizer)
    >>> make_prompts(instructions, tokenizer, template=template, scope="instruction", max_tokens=64)
    """
    _check_arguments(scope, max_tokens, generate)
    wrapped = [template.wrap(item.text) for item in instructions]
    encoded = encode(tokenizer, [text for text, _, _ in wrapped], template.special)
    answers = [Encoded([], [])] * len(instructions)
    if scope in _ANSWERED and not generate:
        if blank := next((item.id for item in instructions if not item.reference), None):
            raise InputError(
                f"instruction {blank}: scope {scope} needs a reference to read, and it has none; "
                "leave it out, or let the model answer with --generate N"
            )
        answers = encode(tokenizer, [item.reference for item in instructions], special=False)
    prompts = []
    for item, (_, start, stop), asked, answer in zip(
        instructions, wrapped, encoded, answers, strict=True
    ):
        asked = _with_bos(asked, tokenizer.bos_token_id, template.bos)
        n = len(asked.ids)
        counted: Ranges = {
            "instruction": covering(asked.offsets, start, stop),
            "prompt": ((0, n),),
            "response": ((n, n + len(answer.ids)),),
            "all": ((0, n + len(answer.ids)),),
        }[scope]
        prompt = Prompt(item.id, (*asked.ids, *answer.ids), counted, generate=generate)
        prompts.append(_counting(_fitting(prompt, context, truncate), max_tokens))
    return prompts


def _check_arguments(scope: str, max_tokens: int | None, generate: int) -> None:
    if scope not in SCOPES:
        raise InputError(f"scope: expected {', '.join(SCOPES)}, got {scope!r}")
    if max_tokens is not None and max_tokens < 1:
        raise InputError(f"max-tokens: must be at least 1, got {max_tokens}")
    if generate < 0 or (generate and scope not in _ANSWERED):
        raise InputError(
            f"generate: scope {scope} counts no answer, so none is written; use scope response or "
            f"all (generate is {generate})"
        )


def _with_bos(encoded: Encoded, bos: int | None, rule: str) -> Encoded:
    ids, offsets = encoded
    if rule == "always" and ids[:1] != [bos]:
        return Encoded([bos, *ids], [(0, 0), *offsets])
    if rule == "never" and ids[:1] == [bos]:
        return Encoded(ids[1:], offsets[1:])
    return encoded


def _fitting(prompt: Prompt, context: int | None, truncate: bool) -> Prompt:
    """The prompt within the model's context: as it is, or cut."""
    needed = len(prompt.token_ids) + prompt.generate
    if context is None or needed <= context:
        return prompt
    if not truncate:
        written = f" and {prompt.generate} to write" if prompt.generate else ""
        raise InputError(
            f"instruction {prompt.id}: {len(prompt.token_ids)} tokens{written}, but the model "
            f"reads at most {context}; shorten it, cut such prompts with --truncate, or, with the "
            "vllm engine, raise --context"
        )
    ids = prompt.token_ids[: context - bool(prompt.generate)]
    counted = tuple((start, min(stop, len(ids))) for start, stop in prompt.counted)
    generate = min(prompt.generate, context - len(ids))
    return Prompt(prompt.id, ids, counted, truncated=True, generate=generate)


def _counting(prompt: Prompt, max_tokens: int | None) -> Prompt:
    """The prompt with at most `max_tokens` counted tokens; raises InputError if none is left."""
    whole = len(prompt.token_ids) + prompt.generate
    kept, left = [], whole if max_tokens is None else max_tokens
    for start, stop in prompt.counted:
        stop = min(stop, start + left)
        if stop > start:
            kept.append((start, stop))
            left -= stop - start
    generate = min(prompt.generate, left)
    if not kept and not generate:
        raise InputError(
            f"instruction {prompt.id}: no token of it is left to count (all were cut, or the "
            "tokenizer has none for its characters)"
        )
    return replace(prompt, counted=tuple(kept), generate=generate)
