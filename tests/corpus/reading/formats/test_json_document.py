"""JSON files: every shape that holds records is read, and what is left open is named."""

import json

import pytest

from sparcom.corpus.reading.rows import read_rows
from sparcom.errors import InputError

A, B = ({"id": "a", "category": "QA", "instruction": "x"}, {"id": "b", "instruction": "y"})
PAIR = [{"id": "a", "n": 1}, {"id": "b", "n": 2.5}]
TWO = [(1, PAIR[0], None), (2, PAIR[1], None)]


def rows_of(tmp_path, document, records=None):
    file = tmp_path / "a.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document, indent=1))
    return list(read_rows(file, records))


@pytest.mark.parametrize(
    "document",
    [
        PAIR,
        {"version": 1, "Data": PAIR},
        {"version": 1, "languages": ["en"], "data": PAIR, "nested": {"a": [{}]}},
        {"languages": ["en", "de"], "data": PAIR},
        {"schema": {"fields": [{"name": "id"}]}, "data": PAIR},
        {"columns": ["id", "n"], "index": [0, 1], "data": [["a", 1], ["b", 2.5]]},
        {"id": ["a", "b"], "n": [1, 2.5]},
        {"id": {"0": "a", "1": "b"}, "n": {"0": 1, "1": 2.5}},
        {"0": PAIR[0], "1": PAIR[1]},
        {"first": PAIR[0], "second": PAIR[1]},
        "\n\n".join(json.dumps(row, indent=2) for row in PAIR),
        "\ufeff" + json.dumps(PAIR),
        "".join(json.dumps(row) + "\n" for row in PAIR),
    ],
)
def test_shapes_that_say_what_their_records_are(tmp_path, document):
    assert rows_of(tmp_path, document) == TWO


def test_shapes_that_pandas_writes(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(PAIR)
    for orient in ("records", "split", "index", "columns", "table"):
        rows = rows_of(tmp_path, frame.to_json(orient=orient))
        extra = {"index"} if orient == "table" else set()
        assert [{k: v for k, v in row.items() if k not in extra} for _, row, _ in rows] == PAIR
    assert rows_of(tmp_path, json.dumps(frame.to_dict(orient="list"))) == TWO
    values = rows_of(tmp_path, frame.to_json(orient="values"))
    assert [row for _, row, _ in values] == [["a", 1], ["b", 2.5]]  # which the schema refuses


def test_one_record_and_one_chat(tmp_path):
    assert rows_of(tmp_path, A) == [(1, A, None)]
    assert rows_of(tmp_path, {"prompt": "x", "n": 3}) == [(1, {"prompt": "x", "n": 3}, None)]
    chat = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}
    assert rows_of(tmp_path, chat) == [(1, chat, None)]
    wrapped = {"conversations": [{"id": 1, "conversations": []}, {"id": 2, "conversations": []}]}
    assert [row for _, row, _ in rows_of(tmp_path, wrapped)] == wrapped["conversations"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            {"train": PAIR, "test": PAIR[:1]},
            r"several lists of records \(train, test\).*--records t",
        ),
        ({"train": PAIR, "test": PAIR}, r"several lists of records \(train, test\)"),
        (
            {"train": {"id": ["a"], "n": [1]}, "test": {"id": ["b"], "n": [2]}},
            "parts of a data set",
        ),
        ({"u": {"x": 1}, "v": {"x": 2}}, r"an object of objects \(u, v\), which may be rows"),
        ({"a": 1, "b": {"c": 2}}, "an object with the fields a, b, and none of them holds"),
        ({}, "an object with the fields none"),
        ({"id": ["a", "b"], "n": [1]}, "none of them holds records"),
        ({"id": {"0": "a"}, "n": {"1": 1}}, "the columns id, n do not have the same rows"),
        ({"columns": ["id", "id"], "data": [["a", 1]]}, "a name comes twice in the list"),
        ("3", "expected a list of records or an object that holds one"),
        ('"x"', "expected a list of records or an object that holds one"),
        ("", "expected a list of records or an object that holds one"),
        ('{"data": [{}], "data": [{}]}', "the field 'data' comes twice"),
        ("[{}] [{}]", "more text follows the list of records, at line 1, column 6"),
        ("[" * 20_000, "nested too deeply"),
        ('{"a":' * 20_000, "nested too deeply"),
    ],
)
def test_what_is_left_open_is_named(tmp_path, document, message):
    with pytest.raises(InputError, match=rf"a\.json: cannot be read.*: .*{message}") as caught:
        rows_of(tmp_path, document)
    assert "\n" not in str(caught.value)


def test_records_names_the_field(tmp_path):
    both = {"train": PAIR, "test": {"id": ["a", "b"], "n": [1, 2.5]}, "n": 3, "part": {"0": A}}
    assert rows_of(tmp_path, both, "train") == TWO
    assert rows_of(tmp_path, both, "test") == TWO
    assert rows_of(tmp_path, both, "part") == [(1, A, None)]
    for name, message in (
        ("n", "--records n: expected a list of records, got value"),
        ("dev", r"--records dev: the file has no such field \(fields here: train, test, n, part\)"),
    ):
        with pytest.raises(InputError, match=message):
            rows_of(tmp_path, both, name)
    with pytest.raises(InputError, match="--records x: the file is a list, not an object"):
        rows_of(tmp_path, PAIR, "x")
    with pytest.raises(InputError, match="--records x: only a JSON object has fields"):
        rows_of(tmp_path, '{"a": 1}\n{"a": 2}\n', "x")


def test_bad_rows_do_not_hide_the_ones_after_them(tmp_path):
    text = '[{"a": 1, "a": 2}, {"n": ' + "1" * 5000 + '}, 3, {"s": "\\ud800"}, {"a": 1}]'
    assert rows_of(tmp_path, text) == [
        (1, None, "the key 'a' comes twice in one object"),
        (2, None, "an integer of 5000 digits; write it as text"),
        (3, 3, None),
        (4, {"s": "\ud800"}, None),
        (5, {"a": 1}, None),
    ]
    assert rows_of(tmp_path, '{"v": 1, "data": ' + text + "}") == rows_of(tmp_path, text)
    split = {"columns": ["id", "n"], "data": [["a", 1], ["b"], ["b", 2.5]]}
    assert rows_of(tmp_path, split)[1] == (2, None, "1 values, but 'columns' names 2")


@pytest.mark.parametrize(
    ("tail", "place"),
    [
        (b'{"a": 2', "line 3, column 8: Expecting ',' delimiter"),
        (b'{"a": nope}]', "line 3, column 7: Expecting value"),
        (b'{"a": "x\ny"}]', "line 3, column 9: Invalid control character"),
        (b"", "line 3, column 1: "),
    ],
)
def test_where_it_breaks_off_is_named_by_line_and_column(tmp_path, tail, place):
    file = tmp_path / "a.json"
    file.write_bytes(b'[{"a": 1},\n{"a": "\xc3\xa9"},\n' + tail)
    rows = read_rows(file)
    assert [next(rows)[1], next(rows)[1]] == [{"a": 1}, {"a": "é"}]
    with pytest.raises(InputError, match=rf"cannot be read after row 2: not JSON at {place}"):
        next(rows)


def test_a_missing_comma_is_named(tmp_path):
    message = "cannot be read after row 1: not JSON at line 1, column 11: expected ',', got '{'"
    with pytest.raises(InputError, match=message):
        rows_of(tmp_path, '[{"a": 2} {"a": 3}]')


def test_bytes_that_are_no_text_are_named_by_their_place(tmp_path):
    file = tmp_path / "a.json"
    for filler in (1, 70_000):
        start = b'[{"a": "' + b"x" * filler
        file.write_bytes(start + b'\xff"}]')
        with pytest.raises(InputError, match=f"not UTF-8 at byte {len(start)} of the file"):
            list(read_rows(file))


@pytest.mark.parametrize("size", [10, 65_500, 65_536, 200_000])
def test_values_larger_than_the_window(tmp_path, size):
    rows = [{"text": "é\n\"'" * (size // 4), "n": at, "list": [[at]]} for at in range(5)]
    for document in (rows, {"x": [1], "rows": rows}, json.dumps(rows, ensure_ascii=False)):
        assert [row for _, row, _ in rows_of(tmp_path, document)] == rows


def test_numbers_and_words_at_the_end_of_the_window(tmp_path):
    for filler in range(65_500, 65_540):
        text = "[" + " " * filler + "123456, true, null, -1.5e3]"
        got = [row for _, row, _ in rows_of(tmp_path, text)]
        assert got == [123456, True, None, -1500.0]
