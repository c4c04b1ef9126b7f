"""Lines of a text file, each within bounds, so that a damaged file cannot fill the memory."""

import codecs
from collections.abc import Iterator
from typing import IO

MAX_ROW = 1 << 26  # bytes of one row, or of one JSON value
_OTHER_CODES = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def check_encoding(start: bytes) -> None:
    """Raise ValueError if a file starts with the mark of an encoding other than UTF-8."""
    if start.startswith(_OTHER_CODES):
        raise ValueError("it is UTF-16 or UTF-32; save it as UTF-8")


class Lines:
    """The lines of a file as bytes with their ends, without a byte order mark.

    number: of the last line that was read, from 1.
    Raises ValueError for a line of more than `MAX_ROW` bytes, or for another encoding.
    """

    def __init__(self, data: IO[bytes]) -> None:
        self._data = data
        self.number = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line = self._data.readline(MAX_ROW)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) == MAX_ROW and line[-1:] != b"\n":
            raise ValueError(f"line {self.number} is longer than {MAX_ROW >> 20} MiB")
        if self.number == 1:
            check_encoding(line)
            line = line.removeprefix(codecs.BOM_UTF8)
        return line


def decoded(line: bytes) -> tuple[str, str | None]:
    """The text of a line, and what is wrong with its bytes."""
    try:
        return line.decode(), None
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 at byte {error.start} of the line; save it as UTF-8"
        return line.decode(errors="replace"), problem
