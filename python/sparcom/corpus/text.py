"""Text as it is shown and compared: nothing invisible, nothing that acts on a terminal."""

import unicodedata
from functools import lru_cache

# Control, format (zero-width, bidirectional), surrogate, private and unassigned characters, and
# the line and paragraph separators: none of them can be seen, some of them reorder what can.
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


def shorten(text: str, width: int) -> str:
    """The printable text on one line, cut to `width` characters."""
    shown = printable(text)
    return shown if len(shown) <= width else shown[: width - 3] + "..."


@lru_cache(maxsize=4096)
def _escaped(char: str) -> str:
    if unicodedata.category(char) not in _HIDDEN:
        return char
    return char.encode("unicode_escape").decode("ascii")
