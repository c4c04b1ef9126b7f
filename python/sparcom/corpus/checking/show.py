"""One instruction as a model reads it: every token, what it stands for, and what is counted."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from sparcom.corpus.prompts.chat_template import PromptTemplate, Rendered
from sparcom.corpus.prompts.encode import Encoded, encode
from sparcom.corpus.prompts.prompts import Prompt, with_bos
from sparcom.corpus.reading.corpus import Corpus
from sparcom.corpus.schema import Instruction
from sparcom.errors import InputError
from sparcom.formatting import printable, render_table, shorten

OPEN, CLOSE = "\u27e6", "\u27e7"  # white square brackets around what is counted


def find_instruction(corpus: Corpus, identifier: str) -> Instruction:
    """The record of a corpus with that id; raises InputError if there is none."""
    first = None
    for item in corpus:
        if item.id == identifier:
            return item
        first = first or item.id
    raise InputError(
        f"corpus {corpus.location}: no instruction has the id {shorten(identifier, 60)!r} (the "
        f"first is {shorten(str(first), 60)!r})"
    )


class Token(NamedTuple):
    """One token of a prompt.

    text: the characters that it holds; if it holds none, its name in the vocabulary.
    part: "text" (the user's own), "template" (what stands around it), "special" (BOS and the other
        special tokens), or "answer" (the reference).
    """

    id: int
    text: str
    part: str
    counted: bool


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A prompt made visible. rendered: its text, with counted stretches in `OPEN` and `CLOSE`."""

    instruction: Instruction
    prompt: Prompt
    rendered: str
    tokens: tuple[Token, ...]

    def to_json(self) -> dict:
        """All of it as plain JSON values."""
        return {
            "id": self.instruction.id,
            "category": self.instruction.category,
            "rendered": self.rendered,
            "n_tokens": len(self.tokens),
            "n_counted": self.prompt.n_counted,
            "generate": self.prompt.generate,
            "truncated": self.prompt.truncated,
            "tokens": [token._asdict() for token in self.tokens],
        }

    def render(self) -> str:
        """The text with counted stretches in brackets, then a table of the tokens."""
        head = (
            f"{shorten(self.instruction.id, 200)} ({shorten(self.instruction.category, 60)}): "
            f"{len(self.tokens)} tokens, {self.prompt.n_counted} counted"
        )
        if self.prompt.generate:
            head += f", and up to {self.prompt.generate} of the model's own answer"
        if self.prompt.truncated:
            head += ", cut to fit the model"
        rows = [
            [at, token.id, shorten(repr(token.text), 40), token.part, "counted" * token.counted]
            for at, token in enumerate(self.tokens)
        ]
        table = render_table(["position", "id", "text", "part", ""], rows)
        return "\n".join([head, "", printable(self.rendered, keep="\n"), "", table])


def show(
    instruction: Instruction, prompt: Prompt, tokenizer: Any, template: PromptTemplate
) -> Shown:
    """A prompt made visible.

    prompt: of `make_prompts` with this tokenizer and template; InputError if it is of others.

    >>> print(show(instruction, prompt, tokenizer, template).render())
    """
    (rendered,) = template.wrap([instruction.text])
    (asked,) = encode(tokenizer, [rendered.text], template.special)
    asked = with_bos(asked, tokenizer.bos_token_id, template.bos)
    (answer,) = encode(tokenizer, [instruction.reference], special=False)
    if (*asked.ids, *answer.ids)[: len(prompt.token_ids)] != prompt.token_ids:
        raise InputError(
            f"show: the prompt of {instruction.id} is of another template or tokenizer"
        )
    counted = {at for start, stop in prompt.counted for at in range(start, stop)}
    pieces = [*_pieces(rendered.text, asked, rendered), *_pieces(instruction.reference, answer)]
    special = set(tokenizer.all_special_ids)
    page, tokens = _Page(), []
    for at, (token, piece) in enumerate(zip(prompt.token_ids, pieces, strict=False)):
        part = "special" if token in special or piece.empty else piece.part
        name = tokenizer.convert_ids_to_tokens(token)
        page.add(piece.gap, False)
        page.add(name if piece.empty else piece.text, at in counted)
        tokens.append(Token(token, piece.text or name, part, at in counted))
    return Shown(instruction=instruction, prompt=prompt, rendered=page.end(), tokens=tuple(tokens))


class _Piece(NamedTuple):
    """What one token holds: its text, and the text before it that no token holds."""

    gap: str
    text: str
    part: str
    empty: bool


def _pieces(text: str, encoded: Encoded, user: Rendered | None = None) -> Iterator[_Piece]:
    """The pieces of a text, token by token; several tokens may share a character's bytes.

    user: where the user's own text is in it; None for an answer.
    """
    done = 0
    for start, stop in encoded.offsets:
        if user is None:
            part = "answer"
        else:
            part = "text" if max(start, user.start) < min(stop, user.stop) else "template"
        gap = text[done:start] if start < stop else ""
        yield _Piece(gap, text[max(start, done) : stop], part, start == stop)
        done = max(done, stop)


class _Page:
    """Text with brackets around its counted stretches."""

    def __init__(self) -> None:
        self._text, self._open = "", False

    def add(self, text: str, counted: bool) -> None:
        if text and counted != self._open:
            self._text += OPEN if counted else CLOSE
            self._open = counted
        self._text += text

    def end(self) -> str:
        return self._text + CLOSE * self._open
