"""Text for people: nothing invisible, nothing that acts on a terminal, aligned tables."""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

# Control, format (zero-width, bidirectional), surrogate, private-use and unassigned characters, and
# line and paragraph separators: none is visible, and some reorder the visible ones.
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


def printable(text: str, keep: str = "") -> str:
    r"""The text with every invisible character written as an escape, all others unchanged.

    keep: characters that stay as they are, such as "\n".

    >>> printable("a\u202eb\x1b[31m")
    'a\\u202eb\\x1b[31m'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep else _escaped(c) for c in text)


def safe_lines(text: str, width: int = 480) -> str:
    """A message of one or several lines, each printable and cut to `width` characters."""
    return "\n".join(shorten(line, width) for line in text.split("\n"))


def shorten(text: str, width: int) -> str:
    """The printable text on one line, cut to `width` characters."""
    shown = printable(text[: width + 1])
    return shown if len(shown) <= width else shown[: width - 3] + "..."


@lru_cache(maxsize=4096)
def _escaped(char: str) -> str:
    if unicodedata.category(char) not in _HIDDEN:
        return char
    return char.encode("unicode_escape").decode("ascii")


def render_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A plain-text table, columns two spaces apart: the first left-aligned, the others right.

    >>> print(render_table(["name", "n"], [["a", 12]]))
    name   n
    a     12
    """
    lines = [list(head), *([str(value) for value in row] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if at else text.ljust(width)
            for at, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
