"""What makes a record valid, and the message where it is not."""

import json

import pytest
from corpora import NASTY, record

from sparcom.corpus.schema import (
    FIELDS,
    SCHEMA,
    Instruction,
    parse_categories,
    problem_of,
    to_instruction,
    to_jsonl,
    to_table,
)
from sparcom.errors import InputError


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("text", "expected an object with the fields id, category"),
        (None, "got NoneType None"),
        (
            {"category": "QA"},
            "fields 'id' and 'instruction' are missing (fields here: category)",
        ),
        ({"x": 1}, "fields 'id', 'category' and 'instruction' are missing (fields here: x)"),
        ({}, "fields here: none"),
        (record(0, id=3), "field 'id' must be text, got int 3"),
        (record(0, id=None), "field 'id' is missing"),
        (record(0, instruction=" \n\t"), "field 'instruction' is blank"),
        (record(0, instruction=""), "field 'instruction' is blank"),
        (record(0, input=["a"]), "field 'input' must be text, got list ['a']"),
        (record(0, reference="\ud800x"), "field 'reference' is not valid Unicode"),
        (record(0, category="SUMM"), "got str 'SUMM'; did you mean 'SUM'?"),
        (record(0, category="x" * 99), "..."),
    ],
)
def test_problems(row, message):
    assert message in problem_of(row)


def test_the_fields_that_are_named_are_those_of_the_row():
    row = {"prompt": "x", "kind": "QA"}
    assert "(fields here: kind, prompt)" in problem_of({"instruction": "x"}, None, row)
    many = {f"f{at}": 1 for at in range(100, 120)}
    assert problem_of(many).endswith(
        "(fields here: f100, f101, f102, f103, f104, f105, f106, f107, ...)"
    )


def test_good_rows_and_what_they_become():
    row = record(1, input=NASTY, extra="dropped", reference=None)
    assert problem_of(row) is None
    item = to_instruction(row)
    assert item.input == NASTY
    assert item.reference == ""
    assert item.text == f"{row['instruction']}\n\n{NASTY}"


def test_categories_of_the_user():
    assert problem_of(record(0, category="haiku"), ("haiku",)) is None
    assert problem_of(record(0, category="haiku"), None) is None
    assert "must be one of haiku" in problem_of(record(0), ("haiku",))
    assert parse_categories("any") is None
    assert parse_categories("A, B") == ("A", "B")


@pytest.mark.parametrize("text", ["", "A,,B", "A,A"])
def test_bad_categories(text):
    with pytest.raises(InputError, match="categories: expected distinct names"):
        parse_categories(text)


def test_table_and_lines_keep_every_character():
    items = [to_instruction(record(at, input=NASTY)) for at in range(3)]
    table = to_table(items)
    assert table.schema == SCHEMA
    assert [Instruction(**row) for row in table.to_pylist()] == items
    lines = [json.loads(line) for line in to_jsonl(items).split("\n")[:-1]]
    assert [tuple(line) for line in lines] == [FIELDS] * 3
    assert [Instruction(**line) for line in lines] == items
