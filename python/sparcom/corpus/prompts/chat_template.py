"""Templates: what one puts around the user's text.

`model` is the tokenizer's own chat template, `from:MODEL` that of another model (a base model is
so read as its tuned one is), `plain` a fixed text, `raw` nothing.
"""

from dataclasses import dataclass

from sparcom.errors import InputError

PLAIN = "Instruction:\n{text}\n\nResponse:\n"
BOS = ("auto", "always", "never")
# Stands for the user's text while what stands around it is found; no template rewrites letters.
_MARK = "SPARCOMxUSERxTEXT"


@dataclass(frozen=True)
class PromptTemplate:
    """What a template puts around the user's text.

    strips: the template trims white space off the text's ends (LLaMA-2's does).
    special: the tokenizer adds its own special tokens (BOS), since the template holds none.
    bos: "auto" leaves the first token to template and tokenizer; "always" and "never" see to it
        that exactly one, or no, beginning-of-sequence token leads.
    """

    prefix: str
    suffix: str
    strips: bool
    special: bool
    bos: str = "auto"

    def wrap(self, text: str) -> tuple[str, int, int]:
        """The rendered prompt, and the characters [start, stop) of it that are the text."""
        text = text.strip() if self.strips else text
        return self.prefix + text + self.suffix, len(self.prefix), len(self.prefix) + len(text)


def make_template(
    template: str, tokenizer, system: str | None = None, donor=None, bos: str = "auto"
) -> PromptTemplate:
    """What a template puts around the user's text.

    template: "model" | "plain" | "raw" | "from:MODEL".
    tokenizer: the model's own; donor: that of MODEL where the template is `from:`.
    system: system prompt; None leaves the template's default.
    bos: see `PromptTemplate`.
    Raises InputError where there is no chat template, or it drops the system prompt or changes
    the user's text.
    """
    if bos not in BOS:
        raise InputError(f"bos: expected {', '.join(BOS)}, got {bos!r}")
    if bos != "auto" and tokenizer.bos_token_id is None:
        raise InputError(f"bos {bos}: this tokenizer has no beginning-of-sequence token")
    if template in ("plain", "raw"):
        prefix, suffix = (PLAIN if template == "plain" else "{text}").split("{text}")
        prefix = f"{system}\n\n{prefix}" if system else prefix
        return PromptTemplate(prefix, suffix, strips=False, special=True, bos=bos)
    if template != "model" and not template.startswith("from:"):
        raise InputError(f"template: expected model, plain, raw or from:MODEL, got {template!r}")
    owner = tokenizer if template == "model" else donor
    if not getattr(owner, "chat_template", None):
        raise InputError(
            f"template {template}: this tokenizer has no chat template (a base model has none); "
            "use template plain, or from:MODEL with the chat model's name"
        )
    prefix, suffix, strips = _chat_template(template, owner, system)
    return PromptTemplate(prefix, suffix, strips, special=False, bos=bos)


def _chat_template(template: str, owner, system: str | None) -> tuple[str, str, bool]:
    """(prefix, suffix, strips) of a chat template, found by rendering a mark."""

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
    if system and system.strip() not in prefix + suffix:
        raise InputError(
            f"template {template}: the chat template drops the system prompt; leave --system out, "
            "or use template plain"
        )
    spaced = render(f" {_MARK} ")
    if spaced == f"{prefix} {_MARK} {suffix}":
        return prefix, suffix, False
    if spaced == prefix + _MARK + suffix:
        return prefix, suffix, True
    raise InputError(f"template {template}: the chat template rewrites the user's text")
