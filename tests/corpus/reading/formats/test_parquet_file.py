"""Parquet: rows that Python cannot hold, columns of one name, damaged pages."""

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparcom.corpus.reading.rows import read_rows
from sparcom.errors import InputError


def rows_of(tmp_path, columns, names=None):
    table = pa.table(columns, names=names)
    pq.write_table(table, tmp_path / "a.parquet")
    return list(read_rows(tmp_path / "a.parquet"))


def test_text_that_is_not_utf8(tmp_path):
    bad = pa.array([b"good", b"\xff\xfe", b"fine"]).view(pa.string())
    got = rows_of(tmp_path, {"id": bad})
    assert got[0] == (1, {"id": "good"}, None)
    assert got[1] == (2, None, "field 'id' is not UTF-8 at its byte 0; save it as UTF-8")
    assert got[2] == (3, {"id": "fine"}, None)


def test_dates_out_of_range(tmp_path):
    day = dt.datetime(2024, 1, 2)
    for unit, number in (("ms", 2**62), ("us", -(2**62))):
        when = pa.array([0, number, 1], pa.int64()).cast(pa.timestamp(unit))
        got = rows_of(tmp_path, {"id": ["a", "b", "c"], "when": when})
        assert [row and row["id"] for _, row, _ in got] == ["a", None, "c"]
        assert "field 'when' cannot be read: " in got[1][2]
    assert rows_of(tmp_path, {"when": [day]}) == [(1, {"when": day}, None)]


def test_columns_of_one_name(tmp_path):
    with pytest.raises(InputError, match="the column 'id' comes twice"):
        rows_of(tmp_path, [["a"], ["b"]], ["id", "id"])
    twice = pa.StructArray.from_arrays([pa.array(["x"]), pa.array(["y"])], ["v", "v"])
    for column in (twice, pa.ListArray.from_arrays([0, 1], twice)):
        with pytest.raises(InputError, match="the column 'm.v' comes twice"):
            rows_of(tmp_path, {"m": column})


def test_more_rows_than_a_batch(tmp_path):
    got = rows_of(tmp_path, {"id": [str(at) for at in range(10_000)]})
    assert [(number, row["id"]) for number, row, _ in got] == [
        (at + 1, str(at)) for at in range(10_000)
    ]


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("part", range(1, 20))
def test_a_flipped_byte_in_a_file_with_checksums(tmp_path, compression, part):
    file = tmp_path / "a.parquet"
    rows = [{"id": f"r{at}", "text": f"{at * 7919:x}" * 20} for at in range(300)]
    pq.write_table(
        pa.Table.from_pylist(rows), file, compression=compression, write_page_checksum=True
    )
    data = bytearray(file.read_bytes())
    data[len(data) * part // 20] ^= 0x10
    file.write_bytes(data)
    try:
        got = [row for _, row, _ in read_rows(file)]
    except InputError as error:
        assert "a.parquet: cannot be read" in str(error)  # noqa: PT017 -- either is right
    else:
        assert got == rows, "the byte that was flipped is in no page"
