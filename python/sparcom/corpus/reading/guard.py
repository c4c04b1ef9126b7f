"""The guard at the border of files: whatever a damaged file raises becomes one InputError."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from sparcom.corpus.reading.problems import Problem
from sparcom.errors import InputError
from sparcom.formatting import shorten

DAMAGE = (
    OSError,  # also of paths: too long, no permission, a full disk; and of gzip checksums
    EOFError,
    ValueError,  # also of paths with a NUL, of text that is not UTF-8, and of dates out of range
    ArithmeticError,
    RecursionError,
    MemoryError,
    zlib.error,
    pa.ArrowException,
)
"""What the readers of the standard library and of Arrow raise for bytes that they cannot read."""


class UnreadableError(InputError):
    """A file that cannot be read, or not to its end."""

    def __init__(self, place: str, text: str) -> None:
        self.problem = Problem(place, text)
        super().__init__(str(self.problem))


@contextmanager
def guarded(place: str, action: str = "cannot be read") -> Iterator[None]:
    """Turn what a damaged file or a bad path raises in this block into an UnreadableError.

    >>> with guarded("corpus a.jsonl"):
    ...     lines = Path("a.jsonl").read_text()
    """
    try:
        yield
    except DAMAGE as error:
        raise UnreadableError(place, f"{action}: {reason_of(error)}") from error


def reason_of(error: BaseException) -> str:
    """Why an operation failed, in one short line."""
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
    return shorten(text or type(error).__name__, 200)
