"""Templates: the text that surrounds the user's own.

`model` is the tokenizer's own chat template, `from:MODEL` that of another model (so that a base
model reads what its tuned one does), `plain` a fixed text, `raw` nothing.

A chat template is a program, and some change the text that they are given: they trim it, or squeeze
its blank lines. So the template itself renders every text. What it puts around a mark is known;
what lies between in a rendering must be the user's characters, all of them or some in their order.
These are counted. Any other rendering is refused.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sparcom.corpus.prompts.kept_tokenizer import KeptTokenizer
from sparcom.corpus.prompts.rendering import Chat, Renderer, RenderError
from sparcom.errors import InputError

PLAIN = "Instruction:\n{text}\n\nResponse:\n"
BOS = ("auto", "always", "never")
# Takes the place of the user's text, to find what surrounds it; few templates rewrite letters.
_MARK = "SPARCOMxUSERxTEXT"


class Rendered(NamedTuple):
    """A rendered prompt.

    start, stop: the characters [start, stop) of `text` that are the user's.
    problem: why the prompt cannot be used.
    """

    text: str
    start: int
    stop: int
    problem: str | None = None


@dataclass(frozen=True)
class PromptTemplate:
    """What a template puts around the user's text.

    special: the tokenizer adds its own special tokens (BOS), since the template holds none.
    bos: "auto" leaves the first token to template and tokenizer; "always" and "never" make it a
        beginning-of-sequence token, or any other.
    chat: what renders a chat template, with the system prompt; None for a fixed text.
    """

    prefix: str
    suffix: str
    special: bool
    bos: str = "auto"
    chat: "ChatTemplate | None" = field(default=None, compare=False)

    def wrap(self, texts: Sequence[str]) -> Iterator[Rendered]:
        """The texts, rendered in order."""
        start = len(self.prefix)
        if self.chat is None:
            for text in texts:
                yield Rendered(self.prefix + text + self.suffix, start, start + len(text))
            return
        for text, (rendered, refused) in zip(texts, self.chat.render(texts), strict=True):
            if rendered is None:
                yield Rendered("", 0, 0, f"the chat template refuses it: {refused}")
                continue
            stop = len(rendered) - len(self.suffix)
            around = rendered.startswith(self.prefix) and rendered.endswith(self.suffix)
            if not around or stop < start:
                problem = "the chat template surrounds it with another text than usual"
            elif not _is_part(rendered[start:stop], text):
                problem = "the chat template rewrites it"
            else:
                problem = None
            yield Rendered(rendered, start, max(start, stop), problem)


def _is_part(found: str, text: str) -> bool:
    """True if `found` is `text`, or is left of it when some of its characters are deleted."""
    if found in text:
        return True
    rest = iter(text)
    return all(char in rest for char in found)


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template with its system prompt. name: of the template argument, for messages."""

    name: str
    renderer: Renderer
    system: str | None

    def render(self, texts: Sequence[str]) -> Iterator[tuple[str | None, str | None]]:
        """For each text the rendered prompt, or why the template refuses it."""
        try:
            yield from self.renderer.render([self._chat(text) for text in texts])
        except RenderError as error:
            raise InputError(f"template {self.name}: {error}") from error

    def render_one(self, text: str) -> str:
        """One text; raises InputError if the template refuses it."""
        ((rendered, refused),) = self.render([text])
        if rendered is None:
            raise InputError(f"template {self.name}: {refused}")
        return rendered

    def _chat(self, text: str) -> Chat:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": text}]


def make_template(
    template: str,
    tokenizer: Any,
    *,
    system: str | None = None,
    donor: Any = None,
    bos: str = "auto",
    date: dt.date | None = None,
) -> PromptTemplate:
    """What a template puts around the user's text.

    template: "model" | "plain" | "raw" | "from:MODEL".
    tokenizer: the model's own. donor: that of MODEL if the template is `from:`.
    system: system prompt; None leaves the template's default.
    bos: see `PromptTemplate`.
    date: what a chat template that writes the date takes for today; None is today.
    Raises InputError if there is no chat template, or if it drops the system prompt or the text.

    >>> make_template("model", tokenizer).prefix
    '<|im_start|>user\\n'
    """
    if bos not in BOS:
        raise InputError(f"bos: expected {', '.join(BOS)}, got {bos!r}")
    if bos != "auto" and tokenizer.bos_token_id is None:
        raise InputError(f"bos {bos}: this tokenizer has no beginning-of-sequence token")
    if template in ("plain", "raw"):
        prefix, suffix = (PLAIN if template == "plain" else "{text}").split("{text}")
        prefix = f"{system}\n\n{prefix}" if system else prefix
        return PromptTemplate(prefix, suffix, special=True, bos=bos)
    if template != "model" and not template.startswith("from:"):
        raise InputError(f"template: expected model, plain, raw or from:MODEL, got {template!r}")
    owner = tokenizer if template == "model" else donor
    if not getattr(owner, "chat_template", None):
        raise InputError(
            f"template {template}: this tokenizer has no chat template (a base model has none); "
            "use template plain, or from:MODEL with the chat model's name"
        )
    chat = ChatTemplate(template, _renderer(template, owner, date), system)
    prefix, suffix = _around(chat)
    made = PromptTemplate(prefix, suffix, special=False, bos=bos, chat=chat)
    (spaced,) = made.wrap([f" {_MARK}\n\n  {_MARK} "])
    if spaced.problem is not None:
        raise InputError(f"template {template}: the chat template rewrites the user's text")
    return made


def _renderer(template: str, owner: Any, date: dt.date | None) -> Renderer:
    if _renders_by_itself(owner):
        raise InputError(
            f"template {template}: this tokenizer renders chats with code of its own, which is not "
            "run; use template plain"
        )
    try:
        source = owner.get_chat_template()
    except ValueError as error:  # several templates, and none is the default
        raise InputError(f"template {template}: {error}") from error
    return Renderer(source, owner.special_tokens_map, date)


def _renders_by_itself(owner: Any) -> bool:
    if isinstance(owner, KeptTokenizer):  # only others are kept
        return False
    from transformers import PreTrainedTokenizerBase

    return type(owner).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template


def _around(chat: ChatTemplate) -> tuple[str, str]:
    """(prefix, suffix) of a chat template, found by rendering a mark."""
    prefix, mark, suffix = chat.render_one(_MARK).partition(_MARK)
    if not mark:
        raise InputError(f"template {chat.name}: the chat template drops the user's text")
    if _MARK in suffix:
        raise InputError(f"template {chat.name}: the chat template repeats the user's text")
    if chat.system and chat.system.strip() not in prefix + suffix:
        raise InputError(
            f"template {chat.name}: the chat template drops the system prompt; leave --system out, "
            "or use template plain"
        )
    return prefix, suffix
