"""CSV and TSV: with quotes, without, and the lines that leave it open."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparcom.corpus.reading.rows import read_rows
from sparcom.errors import InputError


def rows_of(tmp_path, text, suffix=".csv"):
    file = tmp_path / f"a{suffix}"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_rows(file))


def good(tmp_path, text, suffix=".csv"):
    got = rows_of(tmp_path, text, suffix)
    assert [problem for _, _, problem in got] == [None] * len(got)
    return [tuple(row.values()) for _, row, _ in got]


ISHMAEL = 'id{d}text\nq1{d}A?\nq2{d}"Call me Ishmael\nq3{d}C?\nq4{d}D?\n'


@pytest.mark.parametrize(("suffix", "d"), [(".csv", ","), (".tsv", "\t")])
def test_an_unclosed_quote_swallows_no_row(tmp_path, suffix, d):
    assert good(tmp_path, ISHMAEL.format(d=d), suffix) == [
        ("q1", "A?"),
        ("q2", '"Call me Ishmael'),
        ("q3", "C?"),
        ("q4", "D?"),
    ]


@pytest.mark.parametrize(("suffix", "d"), [(".csv", ","), (".tsv", "\t")])
def test_a_quote_at_the_start_of_a_text_is_kept(tmp_path, suffix, d):
    text = f'id{d}text\n1{d}"Hi" said he\n2{d}the "end"\n'
    assert good(tmp_path, text, suffix) == [("1", '"Hi" said he'), ("2", 'the "end"')]


def test_tsv_has_no_quotes_unless_they_are_needed(tmp_path):
    assert good(tmp_path, 'id\ttext\n1\t"Hi"\n2\t""\n', ".tsv") == [("1", '"Hi"'), ("2", '""')]
    needed = 'id\ttext\n1\t"Hi"\n2\t"a\tb"\n3\t"c\nd"\n4\t"say ""no"""\n'
    assert good(tmp_path, needed, ".tsv") == [
        ("1", "Hi"),
        ("2", "a\tb"),
        ("3", "c\nd"),
        ("4", 'say "no"'),
    ]
    assert good(tmp_path, '"id"\t"text"\n1\t"Hi"\n', ".tsv") == [("1", "Hi")]


def test_csv_has_quotes_unless_they_do_not_fit(tmp_path):
    assert good(tmp_path, 'id,text\n1,"Hi"\n') == [("1", "Hi")]
    assert good(tmp_path, 'id,text\n1,"Hi\n') == [("1", '"Hi')]


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ('id,text\n1,"a, b"\n2,"Hi" said he\n3,x\n', 3, "text follows the closing quote"),
        ('id,text\n1,"a, b"\n2,5" pipe\n3,x\n', 3, "a quote inside a field that is not quoted"),
        ('"id","text"\n1,"x"\n2,y"\n', 3, "a quote inside a field that is not quoted"),
    ],
)
def test_with_evidence_for_quotes_a_stray_one_is_a_problem_of_its_line(
    tmp_path, text, line, problem
):
    got = rows_of(tmp_path, text)
    ((number, row, found),) = [one for one in got if one[2]]
    assert (number, row) == (line, None)
    assert problem in found
    assert len(got) == text.count("\n") - 1


@pytest.mark.parametrize(
    "text",
    [
        'id,text\n1,"a, b"\n2,"never closed\n3,x\n4,y\n',
        'id,text\n1,"a, b"\n2,"closed\n3,late" x\n4,y\n',
        'id,text\n1,"a, b"\n2,"poem\n3,line\nend"x\n4,y\n',
    ],
)
def test_where_nothing_says_how_a_row_ends_no_line_after_it_is_believed(tmp_path, text):
    """Rows inside a long field must not become records."""
    file = tmp_path / "a.csv"
    file.write_text(text)
    rows = read_rows(file)
    assert next(rows)[:2] == (2, {"id": "1", "text": "a, b"})
    with pytest.raises(InputError, match=r"cannot be read after 2: line 3 has a quoted field"):
        next(rows)


def test_two_strays_that_look_like_one_field_are_refused(tmp_path):
    text = 'id,text\n1,"Call me Ishmael\n2,B?\n3,he said"\n4,D?\n'
    with pytest.raises(InputError, match="lines 2 to 4 are one row if quotes .* and 3 rows if"):
        rows_of(tmp_path, text)
    quoted = text.replace("id,text", '"id","text"')
    assert good(tmp_path, quoted) == [("1", "Call me Ishmael\n2,B?\n3,he said"), ("4", "D?")]


def test_fields_of_any_length(tmp_path):
    """Python's csv module stops at 131,072 characters."""
    long = "x" * 140_000
    inside = '2,"' + "row,row\n" * 30_000 + '"'
    text = f"id,text\n1,{long}\n{inside}\n3,ok\n"
    got = good(tmp_path, text)
    assert got == [("1", long), ("2", "row,row\n" * 30_000), ("3", "ok")]


def test_rows_of_the_wrong_width_and_wrong_bytes(tmp_path):
    got = rows_of(tmp_path, b'id,text\n1,"two\nlines"\n2\n3,\xff\n4,x,y\n\n5,ok\n')
    assert [row for _, row, _ in got if row] == [
        {"id": "1", "text": "two\nlines"},
        {"id": "5", "text": "ok"},
    ]
    assert [(number, problem) for number, _, problem in got if problem] == [
        (4, "1 value, but the header names 2"),
        (5, "not UTF-8 at byte 2 of the line; save it as UTF-8"),
        (6, "3 values, but the header names 2"),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("id,id\n1,2\n", "its header names the column 'id' twice"),
        (b"\xff,id\n1,2\n", "its header: not UTF-8"),
        ("id,text\r1,a\r2,b\r", "its header: a carriage return inside the line"),
    ],
)
def test_headers_that_cannot_be_used(tmp_path, text, problem):
    with pytest.raises(InputError, match=rf"a\.csv: cannot be read: {problem}"):
        rows_of(tmp_path, text)


def test_line_ends_and_blank_lines(tmp_path):
    text = '\ufeff\r\nid,text\r\n1,"a\r\nb"\r\n\r\n2,c'
    assert good(tmp_path, text) == [("1", "a\r\nb"), ("2", "c")]
    ((_, row, problem), _) = rows_of(tmp_path, "id,text\n1,a\rb\n2,c\n")
    assert row is None
    assert "a carriage return inside the line" in problem


FIELD = st.text(st.sampled_from('ab "\n\r,\té'), max_size=6)
TABLE = st.integers(2, 4).flatmap(
    lambda n: st.lists(st.lists(FIELD, min_size=n, max_size=n), min_size=1, max_size=5)
)


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t")])
@given(table=TABLE, end=st.sampled_from(["\n", "\r\n"]), quoting=st.sampled_from([0, 1]))
def test_what_pythons_writer_writes_is_read_or_named(
    tmp_path_factory, suffix, delimiter, table, end, quoting
):
    """csv.writer quotes what needs it (0) or everything (1)."""
    if quoting == 0:  # it leaves a lone carriage return without quotes
        table = [[field.replace("\r", "") for field in row] for row in table]
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow([f"c{at}" for at in range(len(table[0]))])
    writer.writerows(table)
    try:
        got = good(tmp_path_factory.mktemp("t"), out.getvalue(), suffix)
    except InputError as error:
        assert "are one row if quotes enclose fields" in str(error)  # noqa: PT017 -- either is right
        assert quoting == 0
    else:
        assert got == [tuple(row) for row in table]


@given(
    table=TABLE.filter(lambda t: not any(set("\n\r\t,") & set(f) for row in t for f in row)),
    delimiter=st.sampled_from([",", "\t"]),
)
def test_text_without_quoting_is_read_or_named(tmp_path_factory, table, delimiter):
    """A file of a writer that knows no quotes: no row may vanish, and no text may change."""
    lines = [delimiter.join(row) for row in [[f"c{at}" for at in range(len(table[0]))], *table]]
    file = tmp_path_factory.mktemp("t") / ("a.csv" if delimiter == "," else "a.tsv")
    file.write_text("\n".join(lines) + "\n")
    try:
        got = list(read_rows(file))
    except InputError:
        return
    assert len(got) == len(table)
    for (_, row, problem), expected in zip(got, table, strict=True):
        if problem is None and not any(f[:1] == f[-1:] == '"' for f in expected):
            assert list(row.values()) == expected
