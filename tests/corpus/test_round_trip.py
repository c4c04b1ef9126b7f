"""Every format and shape gives the same records back, and damage gives all rows or an error."""

import gzip
import json
from pathlib import Path

import pytest
from corpora import NASTY
from corpus_shapes import SHAPES, TEXT_SHAPES, write_shape
from hypothesis import given, settings
from hypothesis import strategies as st

from sparcom.corpus.reading.corpus import Corpus, ReadOptions
from sparcom.corpus.reading.fields import parse_fields
from sparcom.corpus.reading.problems import BadRowsError
from sparcom.corpus.schema import CATEGORIES, FIELDS, Instruction
from sparcom.errors import InputError

# Lone carriage returns are left out: Python's csv writer does not quote them (CPython 3.11).
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\r")
PLAIN = st.text(CHARACTERS, max_size=20)
TEXT = PLAIN | st.lists(
    st.sampled_from(
        ['"', '""', ",", "\t", "\n", "\n\n", "'", "\\", "{", "]", "a", " ", NASTY, "é"]
    ),
    max_size=8,
).map("".join)
RECORD = st.fixed_dictionaries(
    {
        "category": st.sampled_from(CATEGORIES),
        "instruction": TEXT.filter(lambda text: text.strip()),
        "input": TEXT,
        "reference": TEXT,
        "source": PLAIN,
        "origin": PLAIN,
        "license": st.just(""),
    }
)


@st.composite
def corpora(draw, least=1):
    found = draw(st.lists(RECORD, min_size=least, max_size=5))
    return [{"id": f"r-{at}", **row} for at, row in enumerate(found)]


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=20)
@given(rows=corpora())
def test_a_corpus_reads_back_the_same(tmp_path_factory, shape, rows):
    file = write_shape(tmp_path_factory.mktemp("c"), shape, rows)
    corpus = Corpus(file)
    assert list(corpus) == [Instruction(**row) for row in rows]
    assert (corpus.rows, corpus.bad_rows, corpus.unreadable) == (len(rows), 0, 0)
    assert not any(corpus.notes.values())


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=8)
@given(rows=corpora())
def test_other_names_and_chats_read_back_the_same(tmp_path_factory, shape, rows):
    folder = tmp_path_factory.mktemp("c")
    theirs = [{"key": row["id"], "q": row["instruction"], "a": row["reference"]} for row in rows]
    fields = parse_fields(["id=key", "instruction=q", "reference=a"], ["category=QA"])
    try:
        got = list(Corpus(write_shape(folder, shape, theirs), ReadOptions(fields=fields)))
    except BadRowsError as error:  # such as r-0,",\n",",": one row of three fields, or two
        if "if quotes enclose fields" not in str(error):
            raise
        quoted = f"{shape[:3]}, all quoted"  # what the message asks for
        got = list(Corpus(write_shape(folder, quoted, theirs), ReadOptions(fields=fields)))
    assert [(i.id, i.instruction, i.reference) for i in got] == [tuple(r.values()) for r in theirs]
    if "csv" in shape or "tsv" in shape:
        return  # no lists in a field
    chats = [
        {
            "id": row["id"],
            "category": "QA",
            "messages": [
                {"role": "user", "content": row["instruction"]},
                {"role": "assistant", "content": row["reference"]},
            ],
        }
        for row in rows
    ]
    got = list(Corpus(write_shape(folder, shape, chats)))
    assert [(i.id, i.instruction, i.reference) for i in got] == [tuple(r.values()) for r in theirs]


def read_or_named(file: Path, rows: list[dict]) -> list[Instruction] | None:
    """All rows, or None after an error that names the file and the place."""
    try:
        got = list(Corpus(file))
    except InputError as error:
        for line in str(error).split("\n"):
            assert len(line) < 500
            assert line.startswith((str(file), "corpus ", "hint: ", "... and ")), line
        return None
    return got


NAMES_STAND_ONCE = ("json, pandas split", "json, pandas columns", "json, lists of values")
CHANGES = ('"', "'", ",", "\t", "\n", "\r", "\\", "{", "}", "[", "]", ":", "\0", "\xff", "x")


@pytest.mark.parametrize("shape", TEXT_SHAPES)
@settings(max_examples=40)
@given(data=st.data(), rows=corpora(least=2))
def test_one_byte_that_is_wrong_costs_no_row_in_silence(tmp_path_factory, shape, data, rows):
    """A byte is changed, put in or taken out: as many rows as before, or an error with the place.

    Rows that vanish or come from nowhere would be rows swallowed by a quote, or lines of a text
    taken for rows.
    """
    file = write_shape(tmp_path_factory.mktemp("c"), shape, rows)
    whole = file.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1), label="at")
    new = data.draw(st.sampled_from(CHANGES), label="new").encode("latin-1")
    how = data.draw(st.sampled_from(["change", "insert", "delete"]), label="how")
    kept = whole[at + (how != "insert") :]
    file.write_bytes(whole[:at] + (b"" if how == "delete" else new) + kept)
    got = read_or_named(file, rows)
    if got is None:
        return
    assert len(got) == len(rows)
    header = whole.find(b"\n") if "csv" in shape or "tsv" in shape else -1
    if shape not in NAMES_STAND_ONCE and at > header:
        same = sum(item == Instruction(**row) for item, row in zip(got, rows, strict=True))
        assert same >= len(rows) - 1, "a byte of one row changed another one"


@pytest.mark.parametrize("shape", ["csv", "csv, all quoted", "tsv", "tsv, all quoted"])
@settings(max_examples=60)
@given(data=st.data(), rows=corpora(least=2))
def test_one_quote_that_is_wrong_costs_no_row_in_silence(tmp_path_factory, shape, data, rows):
    """The same, where it hurts: quotes."""
    file = write_shape(tmp_path_factory.mktemp("c"), shape, rows)
    whole = file.read_bytes()
    quotes = [at for at in range(len(whole)) if whole[at : at + 1] == b'"']
    if quotes and data.draw(st.booleans(), label="take one out"):
        at = data.draw(st.sampled_from(quotes), label="at")
        damaged = whole[:at] + whole[at + 1 :]
    else:
        at = data.draw(st.integers(0, len(whole)), label="at")
        damaged = whole[:at] + b'"' + whole[at:]
    file.write_bytes(damaged)
    got = read_or_named(file, rows)
    if got is not None:
        assert [item.id.replace('"', "") for item in got] == [row["id"] for row in rows]


@pytest.mark.parametrize("shape", [name for name in SHAPES if name not in TEXT_SHAPES])
@settings(max_examples=20)
@given(data=st.data(), rows=corpora(least=2))
def test_one_bit_that_is_wrong_in_a_binary_file(tmp_path_factory, shape, data, rows):
    """gzip has a checksum, so nothing may change; Parquet keeps its rows, or is an error."""
    file = write_shape(tmp_path_factory.mktemp("c"), shape, rows)
    whole = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1), label="at")
    whole[at] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    file.write_bytes(whole)
    got = read_or_named(file, rows)
    if got is None:
        return
    assert len(got) == len(rows)
    if file.suffix == ".gz":
        assert got == [Instruction(**row) for row in rows]


def test_half_a_character_is_a_problem_of_its_row(tmp_path):
    """JSON may say \\ud800, half of a character: it is not replaced by another one."""
    row = dict.fromkeys(FIELDS, "x") | {"id": "a", "category": "QA", "instruction": "\ud800"}
    for name, text in (("a.jsonl", json.dumps(row)), ("a.json", json.dumps([row]))):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match="'instruction' is not valid Unicode: half a"):
            list(Corpus(tmp_path / name))
        packed = tmp_path / f"{name}.gz"
        packed.write_bytes(gzip.compress(text.encode()))
        with pytest.raises(InputError, match="half a surrogate pair at 0"):
            list(Corpus(packed))
