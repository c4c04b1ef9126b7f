"""The references of the AI-generated MATH records, checked by computation.

A wrong reference reads as smoothly as a right one. So every answer is found a second time in
`math_answers.py`, by a search or exact arithmetic that does not follow the worked solution,
and compared with the last line of the reference.
"""

import json
from importlib.resources import files

import pytest
from math_answers import ANSWERS, render


def read_references() -> dict[str, str]:
    """Reference text by record id."""
    path = files("sparcom.corpus.hexainst") / "data" / "hexainst" / "MATH.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return {row["id"]: row["reference"] for row in rows}


REFERENCES = read_references()


def test_every_record_is_computed() -> None:
    assert list(ANSWERS) == list(REFERENCES)
    assert len(ANSWERS) == 100


@pytest.mark.parametrize("record_id", ANSWERS)
def test_computed_answer_ends_the_reference(record_id: str) -> None:
    compute, expected = ANSWERS[record_id]
    last_line = REFERENCES[record_id].splitlines()[-1]
    assert last_line == f"Answer: {expected}"
    assert render(compute()) == expected, f"{record_id}: the computation disagrees"
