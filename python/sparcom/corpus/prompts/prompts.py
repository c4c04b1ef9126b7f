"""From instructions to token ids, and which of the tokens are counted.

A template (`chat_template`) wraps the user's text; the scope says which tokens are counted:

    instruction   those that hold at least one character of the user's own text
    prompt        all of the rendered prompt
    response      those of the answer: the reference, fed after the prompt (teacher-forced), or what
                  the model itself writes (`generate`)
    all           prompt and response
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

from sparcom.corpus.prompts.chat_template import PromptTemplate, Rendered
from sparcom.corpus.prompts.encode import Encoded, covering, encode
from sparcom.corpus.reading.problems import ProblemLog
from sparcom.corpus.schema import Instruction
from sparcom.errors import InputError

SCOPES = ("instruction", "prompt", "response", "all")
_ANSWERED = ("response", "all")

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Prompt:
    """What the engine is given for one instruction.

    id: of the instruction.
    token_ids: all tokens that are read: the rendered prompt, and the reference if it is fed.
    counted: the counted tokens, as half-open ranges, ascending and disjoint.
    truncated: True if tokens were cut to fit the model's context.
    generate: how many tokens of the model's own answer are counted at most; 0: none is written.
        A token counts when it is read. The last one that is written never is, so one more is
        written than is counted.
    asked: tokens before the answer; None: all that are read.
    """

    id: str
    token_ids: tuple[int, ...]
    counted: tuple[tuple[int, int], ...]
    _: KW_ONLY
    truncated: bool = False
    generate: int = 0
    asked: int | None = field(default=None, compare=False)

    @property
    def answer_at(self) -> int:
        """The position at which the answer begins, or would."""
        read = len(self.token_ids)
        return read if self.asked is None else min(self.asked, read)

    @property
    def n_counted(self) -> int:
        """T without generated tokens, whose number only the engine knows."""
        return sum(stop - start for start, stop in self.counted)


def make_prompts(
    instructions: Sequence[Instruction],
    tokenizer: Any,
    *,
    template: PromptTemplate,
    scope: str = "instruction",
    max_tokens: int | None = None,
    context: int | None = None,
    truncate: bool = False,
    generate: int = 0,
    log: ProblemLog | None = None,
) -> list[Prompt]:
    """The prompts of instructions, in their order.

    tokenizer: a fast tokenizer of transformers (offsets are needed).
    scope: one of `SCOPES`.
    max_tokens: L; only the first L counted tokens of each instruction stay counted.
    context: the model's longest sequence in tokens; a longer prompt is a problem, or is cut from
        the right if `truncate` is set.
    generate: tokens of the model's own answer that are counted at most, for scopes response and
        all; 0 feeds it the reference instead.
    log: takes what is wrong with an instruction, which then has no prompt in the result.
    Raises InputError that names every instruction without a prompt, if there is no log.

    >>> template = make_template("model", tokenizer)
    >>> make_prompts(instructions, tokenizer, template=template, scope="instruction", max_tokens=64)
    """
    _check_arguments(scope, max_tokens, generate)
    problems = ProblemLog() if log is None else log
    rendered = list(template.wrap([item.text for item in instructions]))
    encoded = encode(tokenizer, [one.text for one in rendered], template.special)
    fed = scope in _ANSWERED and not generate
    answers = encode(tokenizer, [i.reference if fed else "" for i in instructions], special=False)
    prompts = []
    for item, around, asked, answer in zip(instructions, rendered, encoded, answers, strict=True):
        try:
            if fed and not item.reference:
                raise _PromptError(
                    f"scope {scope} needs a reference to read, and it has none; leave it out, or "
                    "let the model answer with --generate N"
                )
            asked = with_bos(asked, tokenizer.bos_token_id, template.bos)
            prompt = _prompt(item.id, around, asked, answer, scope, generate)
            prompts.append(_counting(_fitting(prompt, context, truncate), max_tokens))
        except _PromptError as error:
            problems.add(f"instruction {item.id}", str(error))
    if log is None and problems.count:
        raise problems.error()
    return prompts


class _PromptError(ValueError):
    """Why an instruction has no prompt."""


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


def _prompt(
    identifier: str, around: Rendered, asked: Encoded, answer: Encoded, scope: str, generate: int
) -> Prompt:
    """A prompt before it is cut to the context or to `max_tokens`."""
    if around.problem is not None:
        raise _PromptError(f"its text cannot be used: {around.problem}; use template plain")
    n, whole = len(asked.ids), len(asked.ids) + len(answer.ids)
    counted: Ranges = {
        "instruction": covering(asked.offsets, around.start, around.stop),
        "prompt": ((0, n),),
        "response": ((n, whole),),
        "all": ((0, whole),),
    }[scope]
    return Prompt(identifier, (*asked.ids, *answer.ids), counted, generate=generate, asked=n)


def with_bos(encoded: Encoded, bos: int | None, rule: str) -> Encoded:
    """The tokens with or without a beginning-of-sequence token, as the template's rule says."""
    ids, offsets = encoded
    if rule == "always" and bos is not None and ids[:1] != [bos]:
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
        raise _PromptError(
            f"{len(prompt.token_ids)} tokens{written}, but the model reads at most {context}; "
            "shorten it, leave it out with --on-error skip, cut such prompts with --truncate, or, "
            "with the vllm engine, raise --context"
        )
    ids = prompt.token_ids[: context - bool(prompt.generate)]
    counted = tuple((start, min(stop, len(ids))) for start, stop in prompt.counted)
    generate = min(prompt.generate, context - len(ids))
    return replace(prompt, token_ids=ids, counted=counted, truncated=True, generate=generate)


def _counting(prompt: Prompt, max_tokens: int | None) -> Prompt:
    """The prompt with at most `max_tokens` counted tokens."""
    whole = len(prompt.token_ids) + prompt.generate
    kept, left = [], whole if max_tokens is None else max_tokens
    for start, stop in prompt.counted:
        stop = min(stop, start + left)
        if stop > start:
            kept.append((start, stop))
            left -= stop - start
    generate = min(prompt.generate, left)
    if not kept and not generate:
        raise _PromptError(
            "no token of it is left to count (all were cut, or the tokenizer has none for its "
            "characters)"
        )
    return replace(prompt, counted=tuple(kept), generate=generate)
