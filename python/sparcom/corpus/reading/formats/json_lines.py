"""Rows of JSON lines: one record on each line; blank lines are passed over."""

import json
from collections.abc import Iterator

from sparcom.corpus.reading.formats.lines import Lines, decoded
from sparcom.corpus.reading.formats.row import Row
from sparcom.corpus.reading.formats.strict_json import StrictDecoder


def json_line_rows(lines: Lines) -> Iterator[Row]:
    """One row per line that is not blank; a line that is not JSON is a problem of its own."""
    decoder = StrictDecoder()
    for line in lines:
        text, problem = decoded(line)
        if problem is not None:
            yield lines.number, None, problem
            continue
        try:
            record = decoder.decode(text)
        except json.JSONDecodeError as error:
            if text.strip():
                yield lines.number, None, f"not JSON at column {error.colno}: {error.msg}"
        except RecursionError:
            yield lines.number, None, "not a record: JSON nested too deeply"
        else:
            problem, decoder.problem = decoder.problem, None
            yield lines.number, (record if problem is None else None), problem
