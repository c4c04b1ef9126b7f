"""Conversations: the first user turn is an instruction, the answer to it the reference."""

from collections import Counter
from collections.abc import Mapping, Sequence

from sparcom.formatting import shorten

CHAT_FIELDS = ("messages", "conversations")
_ROLES = {
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "chatgpt", "bing", "bard", "claude", "model", "bot"),
    "system": ("system", "developer"),
    "tool": ("tool", "function", "ipython", "observation"),
}
_ROLE_OF = {alias: role for role, aliases in _ROLES.items() for alias in aliases}


def first_exchange(chat: object, notes: Counter[str]) -> tuple[dict[str, str], str | None]:
    """`(fields, problem)`: the first exchange of a conversation as instruction and reference.

    chat: list of objects with role and content (OpenAI), or from and value (ShareGPT).
    notes: counts what is left out.
    """
    if not isinstance(chat, list | tuple) or not all(isinstance(turn, Mapping) for turn in chat):
        return {}, "the chat messages must be a list of objects with role and content"
    roles = [turn.get("role", turn.get("from")) for turn in chat]
    if not all(isinstance(role, str) for role in roles):
        return {}, "a chat message must have a role"
    known = [_ROLE_OF.get(role.strip().lower(), role) for role in roles]
    notes["system messages not used (give --system)"] += "system" in known
    if "user" not in known:
        return {}, f"the chat messages hold no user turn (roles here: {_listed(roles)})"
    asked = known.index("user")
    text = _content(chat[asked])
    if text is None:
        return {}, "the first user turn must have content that is text"
    record = {"instruction": text}
    if asked + 1 < len(chat):
        answer = _content(chat[asked + 1])
        if known[asked + 1] == "assistant" and answer is not None:
            record["reference"] = answer
        elif known[asked + 1] in ("assistant", "tool"):
            notes["first answers without text (tool calls), not used"] += 1
        elif known[asked + 1] not in _ROLES:
            notes[f"answers of the unknown role {shorten(roles[asked + 1], 30)!r}, not used"] += 1
    notes["conversations cut to their first turn"] += "user" in known[asked + 1 :]
    return record, None


def _content(turn: Mapping) -> str | None:
    """The text of a message: a string, or a list of text parts; None if it is anything else."""
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list):
        found = [part.get("text") for part in content if isinstance(part, Mapping)]
        texts = [text for text in found if isinstance(text, str)]
        return "".join(texts) if texts and len(texts) == len(content) else None
    return content if isinstance(content, str) else None


def _listed(roles: Sequence[str]) -> str:
    return ", ".join(repr(shorten(role, 30)) for role in list(dict.fromkeys(roles))[:5]) or "none"
