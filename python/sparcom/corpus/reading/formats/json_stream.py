"""The values of a JSON file one after another, so that memory holds one value and no file.

Python's own decoder reads each value from a window of text that grows until the value is whole.
"""

import codecs
import json
from collections.abc import Iterator
from typing import IO

from sparcom.corpus.reading.formats.lines import MAX_ROW, check_encoding
from sparcom.corpus.reading.formats.strict_json import StrictDecoder

_CHUNK = 1 << 16  # bytes that are read at a time, at least
_TOKEN = 16  # characters; an error, or a number, so near the window's end may only be cut off
_SPACE = " \t\r\n"


class JsonStream:
    """A position in a JSON file; every method moves it forward.

    problem: what was wrong with the values since it was last taken, though they could be decoded.
    Raises ValueError, naming line and column, for what is not JSON.
    """

    def __init__(self, data: IO[bytes]) -> None:
        data.seek(0)
        self._data = data
        self._text = codecs.getincrementaldecoder("utf-8")()
        self._decoder = StrictDecoder()
        self._window, self._at, self._ended = "", 0, False
        self._lines, self._column, self._bytes = 1, 1, 0
        self._more()
        self._window = self._window.removeprefix("\ufeff")

    def peek(self) -> str:
        """The next character that is no space; "" at the end of the file."""
        while True:
            while self._at < len(self._window) and self._window[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._window) or self._ended:
                return self._window[self._at : self._at + 1]
            self._more()

    def take(self, char: str) -> bool:
        """Pass the next character if it is this one."""
        found = self.peek() == char
        self._at += found
        return found

    def value(self) -> object:
        """The next value, whole."""
        self.peek()
        before = self._decoder.problem
        while True:
            try:
                value, stop = self._decoder.raw_decode(self._window, self._at)
            except json.JSONDecodeError as error:
                if self._ended or not self._cut(error):
                    raise self._error(error.msg, error.pos) from error
            except RecursionError as error:
                raise self._error("it is nested too deeply", self._at) from error
            else:
                if len(self._window) - stop > _TOKEN or self._ended:
                    self._at = stop
                    return value
            if len(self._window) - self._at > MAX_ROW:
                raise self._error(f"a value of more than {MAX_ROW >> 20} MiB", self._at)
            self._decoder.problem = before
            self._more()

    def items(self) -> Iterator[object]:
        """The items of a list whose opening bracket was taken."""
        if self.take("]"):
            return
        while True:
            yield self.value()
            if self.take("]"):
                return
            self._expect(",")

    def members(self) -> Iterator[str]:
        """The names of an object whose brace was taken; the caller takes the value after each."""
        if self.take("}"):
            return
        while True:
            if self.peek() != '"':
                raise self._error("expected the name of a field in quotes", self._at)
            name = self.value()
            self._expect(":")
            yield str(name)
            if self.take("}"):
                return
            self._expect(",")

    def take_problem(self) -> str | None:
        """What was wrong with the values since the last call."""
        problem, self._decoder.problem = self._decoder.problem, None
        return problem

    def place(self) -> str:
        """Where the stream is, for people."""
        return self._place(self._at)

    def _expect(self, char: str) -> None:
        if not self.take(char):
            got = repr(self.peek()) if self.peek() else "the end of the file"
            raise self._error(f"expected {char!r}, got {got}", self._at)

    def _cut(self, error: json.JSONDecodeError) -> bool:
        """True if an error may be only that the window ends inside the value."""
        near = len(self._window) - error.pos <= _TOKEN
        return near or error.msg.startswith("Unterminated string")

    def _more(self) -> None:
        """Forget the text before the position, and read on."""
        passed = self._window[: self._at]
        if breaks := passed.count("\n"):
            self._lines, self._column = self._lines + breaks, len(passed) - passed.rindex("\n")
        else:
            self._column += len(passed)
        kept = self._window[self._at :]
        data = self._data.read(max(_CHUNK, len(kept)))
        if not self._bytes:
            check_encoding(data)
        waiting = len(self._text.getstate()[0])
        try:
            text = self._text.decode(data, final=not data)
        except UnicodeDecodeError as error:
            at = self._bytes - waiting + error.start
            raise ValueError(f"not UTF-8 at byte {at} of the file; save it as UTF-8") from error
        self._bytes += len(data)
        self._window, self._at, self._ended = kept + text, 0, not data

    def _place(self, at: int) -> str:
        passed = self._window[:at]
        if breaks := passed.count("\n"):
            return f"line {self._lines + breaks}, column {len(passed) - passed.rindex(chr(10))}"
        return f"line {self._lines}, column {self._column + at}"

    def _error(self, text: str, at: int) -> ValueError:
        return ValueError(f"not JSON at {self._place(at)}: {text}")
