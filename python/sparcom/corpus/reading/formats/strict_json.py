"""JSON without the two things that Python's decoder takes in silence or stops at.

A key that comes twice in one object would hide a value, and an integer of more than 4,300 digits
cannot be converted. Both are problems of one record: its value is decoded to the end, so that the
next record can be read.
"""

import json
from collections import Counter

MAX_DIGITS = 4300  # Python's own bound on the conversion of a text to an integer


class StrictDecoder:
    """A JSON decoder that says what is wrong with a value that it could decode.

    problem: of the values since `problem` was last set to None.
    """

    def __init__(self) -> None:
        self.problem: str | None = None
        decoder = json.JSONDecoder(object_pairs_hook=self._object, parse_int=self._integer)
        self.decode = decoder.decode
        self.raw_decode = decoder.raw_decode

    def _object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = Counter(name for name, _ in pairs)
            twice = next(name for name, n in names.items() if n > 1)
            self.problem = f"the key {twice!r} comes twice in one object"
        return found

    def _integer(self, digits: str) -> int:
        if len(digits) <= MAX_DIGITS:
            return int(digits)
        self.problem = f"an integer of {len(digits)} digits; write it as text"
        return 0
