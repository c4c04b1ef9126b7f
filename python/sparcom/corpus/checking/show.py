"""One instruction as a model reads it: the rendered text, its token ids, what is counted."""

from dataclasses import dataclass

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.corpus.reading.corpus import Corpus
from sparcom.corpus.schema import Instruction
from sparcom.errors import InputError
from sparcom.formatting import printable, render_table, shorten

OPEN, CLOSE = "\u27e6", "\u27e7"  # white square brackets around what is counted


def find_instruction(corpus: Corpus, identifier: str) -> Instruction:
    """The record of a corpus with that id; raises InputError where there is none."""
    first = None
    for item in corpus:
        if item.id == identifier:
            return item
        first = first or item.id
    raise InputError(
        f"corpus {corpus.location}: no instruction has the id {identifier!r} (the first is "
        f"{first!r})"
    )


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A prompt made visible.

    rendered: the text that the tokens stand for; counted stretches in `OPEN` and `CLOSE`.
    tokens: (token id, text of the token alone, whether it is counted) of every token.
    """

    instruction: Instruction
    prompt: Prompt
    rendered: str
    tokens: tuple[tuple[int, str, bool], ...]

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
            "tokens": [list(token) for token in self.tokens],
        }

    def render(self) -> str:
        """The text with counted stretches in brackets, then a table of the tokens."""
        head = (
            f"{printable(self.instruction.id)} ({printable(self.instruction.category)}): "
            f"{len(self.tokens)} tokens, {self.prompt.n_counted} counted"
        )
        if self.prompt.generate:
            head += f", and up to {self.prompt.generate} of the model's own answer"
        if self.prompt.truncated:
            head += ", cut to fit the model"
        rows = [
            [at, token, shorten(repr(text), 40), "counted" if counted else ""]
            for at, (token, text, counted) in enumerate(self.tokens)
        ]
        table = render_table(["position", "id", "text", ""], rows)
        return "\n".join([head, "", printable(self.rendered, keep="\n"), "", table])


def show(instruction: Instruction, prompt: Prompt, tokenizer) -> Shown:
    """A prompt of `make_prompts` made visible.

    >>> print(show(instruction, prompt, tokenizer).render())
    """
    counted = [False] * len(prompt.token_ids)
    for start, stop in prompt.counted:
        counted[start:stop] = [True] * (stop - start)
    texts = tokenizer.batch_decode([[token] for token in prompt.token_ids])
    pieces, at = [], 0
    for start, stop in (*prompt.counted, (len(prompt.token_ids),) * 2):
        pieces.append(tokenizer.decode(prompt.token_ids[at:start]))
        if stop > start:
            pieces.append(OPEN + tokenizer.decode(prompt.token_ids[start:stop]) + CLOSE)
        at = stop
    tokens = tuple(zip(prompt.token_ids, texts, counted, strict=True))
    return Shown(instruction=instruction, prompt=prompt, rendered="".join(pieces), tokens=tokens)
