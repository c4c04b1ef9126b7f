"""Every format gives the same rows, and a bad row does not hide the ones after it."""

import json
import os

import pytest
from corpora import NASTY, record, write
from hypothesis import given
from hypothesis import strategies as st

from sparcom.corpus.reading.files import is_corpus_file
from sparcom.corpus.reading.formats import lines
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


def test_jsonl_names_a_key_that_comes_twice_and_an_endless_integer(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"a": 1, "b": {"c": 1, "c": 2}}\n{"a": ' + "7" * 5000 + '}\n{"a": 1}\n')
    assert list(read_rows(file)) == [
        (1, None, "the key 'c' comes twice in one object"),
        (2, None, "an integer of 5000 digits; write it as text"),
        (3, {"a": 1}, None),
    ]


def test_json_lines_under_the_name_json(tmp_path):
    file = tmp_path / "a.json"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1, "options": ["x", "y"]}\n{"a": 2}\n{broken\n')
    first, second, third = read_rows(file)
    assert (first, second) == ((1, {"a": 1, "options": ["x", "y"]}, None), (2, {"a": 2}, None))
    assert third[0] == 3
    assert "not JSON at column 2" in third[2]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl.gz"])
def test_files_that_are_no_such_file(tmp_path, suffix):
    file = tmp_path / f"a{suffix}"
    file.write_bytes(b"not what the suffix says")
    with pytest.raises(InputError, match=r"a\.(parquet|jsonl\.gz): cannot be read"):
        list(read_rows(file))


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".json.gz", ".csv.gz"])
@pytest.mark.parametrize("damage", [lambda d: d[:-20], lambda d: flipped(d, -6)])
@pytest.mark.parametrize("at", [0, 0.3, 0.6, 0.9])
def test_a_damaged_gzip_file_gives_no_row_at_all(tmp_path, suffix, damage, at):
    """The checksum comes last, so no row is believed before all of the file was unpacked."""
    rows = [record(k, input=f"{k * 7919:x}" * 40) for k in range(200)]
    file = write(tmp_path / f"a{suffix}", rows)
    data = file.read_bytes()
    file.write_bytes(flipped(data, int(at * len(data))) if at else damage(data))
    with pytest.raises(InputError, match=rf"a{suffix}: cannot be read: "):
        next(read_rows(file))


def test_a_pointer_to_data_that_was_not_fetched(tmp_path):
    for suffix in SUFFIXES:
        file = tmp_path / f"a{suffix}"
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
        with pytest.raises(InputError, match="a Git LFS pointer.*git lfs pull"):
            list(read_rows(file))


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match="not a regular file"):
        list(read_rows(tmp_path / "a.jsonl"))
    with pytest.raises(InputError, match="a broken link"):
        list(read_rows(tmp_path / "b.jsonl"))


@pytest.mark.parametrize("code", ["utf-16", "utf-32"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_another_encoding_is_named(tmp_path, suffix, code):
    file = write(tmp_path / f"a{suffix}", [record(0)])
    file.write_bytes(file.read_text().encode(code))
    with pytest.raises(InputError, match="it is UTF-16 or UTF-32; save it as UTF-8"):
        list(read_rows(file))


def test_an_endless_line_is_not_taken_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MAX_ROW", 1 << 16)
    for suffix in (".jsonl", ".csv"):
        file = tmp_path / f"a{suffix}"
        file.write_bytes(b"id\n" + b"x" * (1 << 17))
        with pytest.raises(InputError, match="line 2 is longer than 0 MiB"):
            list(read_rows(file))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("lines", [20, 80])
def test_a_file_that_changes_while_it_is_read(tmp_path, suffix, lines):
    rows = [record(at, input="x" * 9999) for at in range(50)]
    file = write(tmp_path / f"a{suffix}", rows)
    size = file.stat().st_size
    reading = read_rows(file)
    next(reading)
    if lines < 50:
        os.truncate(file, file.read_bytes().rindex(b"\n", 0, size // 2) + 1)
    else:
        file.write_bytes(file.read_bytes() + file.read_bytes().splitlines(True)[-1])
    with pytest.raises(InputError, match=r"cannot be read after \d+: it changed while"):
        list(reading)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jsonl", True),
        ("a.csv.gz", True),
        ("A.JSONL.GZ", True),
        ("A.CSV", True),
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
