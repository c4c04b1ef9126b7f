"""Our docstrings as Markdown, for mkdocstrings.

They are written to be read in the source: `name: meaning` lines, indented formulas, `>>>` examples.
Markdown would run the first together, and take the last for a quotation.
"""

import re
from typing import Any

import griffe

_NAME = r"[A-Za-z_*`][\w*`]*(?:, [\w*`]+)*"
_NAMED = re.compile(rf"^({_NAME}): (?=\S)")
_SECOND = re.compile(rf"(?<=[.;]) (?={_NAME}: \S)")  # a second name on the line of the first
_VERBS = ("Raises", "Returns", "Yields", "Note", "Example", "Source")


class PlainDocstrings(griffe.Extension):
    """Rewrites every docstring before it is rendered."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(text: str) -> str:
    """A docstring with `name: meaning` lines as a list and examples as code."""
    blocks = re.split(r"\n\s*\n", text.strip("\n"))
    return "\n\n".join(_block(block) for block in blocks)


def _block(block: str) -> str:
    lines = block.splitlines()
    if lines[0].lstrip().startswith(">>>"):
        indent = len(lines[0]) - len(lines[0].lstrip())
        return "\n".join(["```pycon", *(line[indent:] for line in lines), "```"])
    if not any(_named(line) for line in lines):
        return block
    out: list[str] = []
    for line in lines:
        inside = bool(out) and out[-1].startswith(("- ", "  "))
        if _named(line):
            if out and not inside:
                out.append("")  # a list starts after a blank line
            for part in _SECOND.split(line):
                name, meaning = part.split(": ", 1)
                out.append(f"- **{name}**: {meaning.rstrip(';')}")
        elif inside and not line[0].isupper():
            first, *more = _SECOND.split(line.strip())
            out.append(f"  {first}")
            out += [f"- **{p.split(': ', 1)[0]}**: {p.split(': ', 1)[1]}" for p in more]
        else:
            out += ["", line] if inside else [line]
    return "\n".join(out)


def _named(line: str) -> bool:
    named = _NAMED.match(line)
    return named is not None and named[1] not in _VERBS
