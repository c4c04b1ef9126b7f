"""Every format gives the same rows, and a bad row does not hide the ones after it."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import NASTY, record, write
from hypothesis import given
from hypothesis import strategies as st

from sparcom.corpus.reading.files import is_corpus_file
from sparcom.corpus.reading.rows import read_rows
from sparcom.errors import InputError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_are_the_same_in_every_format(tmp_path, suffix):
    rows = [record(at) for at in range(7)]
    rows[3]["input"] = NASTY + '\nsecond line, "quoted", \t tab'
    got = list(read_rows(write(tmp_path / f"a{suffix}", rows)))
    assert [row for _, row, _ in got] == rows
    assert [problem for _, _, problem in got] == [None] * 7


def test_jsonl_numbers_are_lines_and_blank_lines_are_passed_over(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n   \n{"a": 2}\n{"a": 3}')
    assert list(read_rows(file)) == [(1, {"a": 1}, None), (4, {"a": 2}, None), (5, {"a": 3}, None)]


def test_jsonl_names_each_bad_line(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\n{"a": "\xff"}\n{"a": }\n' + b"[" * 100_000 + b"\n{}\n")
    got = list(read_rows(file))
    assert [number for number, _, problem in got if problem] == [2, 3, 4]
    assert "not UTF-8 at byte 7" in got[1][2]
    assert "not JSON at column 7" in got[2][2]
    assert "nested too deeply" in got[3][2]
    assert got[4] == (5, {}, None)


def test_json_list_inside_an_object(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"version": 1, "Data": [{"a": 1}, {"a": 2.5}]}))
    assert list(read_rows(file)) == [(1, {"a": 1}, None), (2, {"a": 2.5}, None)]


@pytest.mark.parametrize("text", ["3", '"x"', "{}", '{"a": 1}'])
def test_json_without_a_list(tmp_path, text):
    file = tmp_path / "a.json"
    file.write_text(text)
    ((number, row, problem),) = read_rows(file)
    assert (number, row) == (1, None)
    assert "expected a JSON list of records" in problem


@pytest.mark.parametrize("tail", [b'{"a": 2', b'{"a": nope}]', b'{"a": "\xff"}]'])
def test_json_that_breaks_off_says_where(tmp_path, tail):
    file = tmp_path / "a.json"
    file.write_bytes(b'[{"a": 1}, ' + tail)
    first, second = read_rows(file)
    assert first == (1, {"a": 1}, None)
    assert second[0] == 2
    assert "the rest of a.json is unread" in second[2]


def test_json_lines_under_the_name_json(tmp_path):
    file = tmp_path / "a.json"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1, "options": ["x", "y"]}\n{"a": 2}\n{broken\n')
    first, second, third = read_rows(file)
    assert (first, second) == ((1, {"a": 1, "options": ["x", "y"]}, None), (2, {"a": 2}, None))
    assert third[0] == 3
    assert "not JSON at column 2" in third[2]


def test_csv_rows_of_the_wrong_width_and_wrong_bytes(tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(b'id,text\n1,"two\nlines"\n2\n3,\xff\n4,x,y\n\n5,ok\n')
    got = list(read_rows(file))
    assert [row for _, row, _ in got if row] == [
        {"id": "1", "text": "two\nlines"},
        {"id": "5", "text": "ok"},
    ]
    assert [(number, problem) for number, _, problem in got if problem] == [
        (4, "1 values, but the header names 2 columns"),
        (5, "not UTF-8 at byte 2 of the line; save it as UTF-8"),
        (6, "3 values, but the header names 2 columns"),
    ]


def test_csv_header_with_a_column_twice(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("id,id\n1,2\n")
    assert "'id' twice" in next(read_rows(file))[2]


def test_csv_field_over_the_limit_is_a_problem_of_its_row(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("id,text\n1," + "x" * 140_000 + "\n2,ok\n")
    got = list(read_rows(file))
    assert "field larger than field limit" in got[0][2]
    assert got[-1][1] == {"id": "2", "text": "ok"}


def test_parquet_with_bytes_that_are_no_text(tmp_path):
    bad = pa.array([b"good", b"\xff\xfe", b"fine"]).view(pa.string())
    pq.write_table(pa.table({"id": bad}), tmp_path / "a.parquet")
    got = list(read_rows(tmp_path / "a.parquet"))
    assert got[0] == (1, {"id": "good"}, None)
    assert got[1][0] == 2
    assert "not UTF-8" in got[1][2]
    assert got[2] == (3, {"id": "fine"}, None)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl.gz"])
def test_files_that_are_no_such_file(tmp_path, suffix):
    file = tmp_path / f"a{suffix}"
    file.write_bytes(b"not what the suffix says")
    with pytest.raises(InputError, match=r"a\.(parquet|jsonl\.gz): cannot be read"):
        list(read_rows(file))


def test_gzip_that_breaks_off(tmp_path):
    file = tmp_path / "a.jsonl.gz"
    whole = gzip.compress(b'{"a": "' + bytes(range(32, 127)) * 3000 + b'"}\n')
    file.write_bytes(whole[:-20])
    with pytest.raises(InputError, match="cannot be read"):
        list(read_rows(file))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jsonl", True),
        ("a.csv.gz", True),
        (".a.jsonl", False),
        ("CLS.grid.jsonl", False),
        ("a.parquet.gz", False),
        ("a.txt", False),
        ("README.md", False),
    ],
)
def test_which_files_are_read(tmp_path, name, expected):
    assert is_corpus_file(tmp_path / name) is expected


@given(st.lists(st.dictionaries(st.text(min_size=1), st.text(), min_size=1), max_size=4))
def test_any_text_survives_jsonl(tmp_path_factory, rows):
    file = tmp_path_factory.mktemp("rows") / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row for _, row, _ in read_rows(file)] == rows
