"""The report of `check`: all that is wrong, and a verdict."""

import json

import pytest
from corpora import NASTY, record, write

from sparcom.corpus.checking.check import check
from sparcom.corpus.reading import hub
from sparcom.corpus.reading.corpus import Corpus, ReadOptions
from sparcom.corpus.reading.fields import parse_fields
from sparcom.corpus.reading.problems import ProblemLog
from sparcom.errors import InputError


def test_a_good_corpus(tmp_path):
    report = check(Corpus(write(tmp_path / "a.csv", [record(at) for at in range(8)])))
    assert report.ok
    assert (report.rows, report.records.total(), report.unused) == (8, 8, ())
    assert report.render().endswith(
        "a.csv: ok; 8 of 8 rows are instructions (CLS 2, CODE 2, QA 1, GEN 1, MATH 1, SUM 1)"
    )


def test_a_bad_corpus_is_reported_not_raised(tmp_path):
    rows = [record(0), record(1, id=NASTY, category="X"), record(0), record(2, instruction="")]
    file = write(tmp_path / "a.jsonl", rows)
    report = check(Corpus(file, log=ProblemLog(limit=2)))
    assert not report.ok
    assert report.problems.count == 3
    lines = report.render().split("\n")
    assert lines[0].startswith(f"{file}:2: field 'category' must be one of")
    assert lines[2] == "... and 1 more"
    assert "3 bad rows; 1 of 4 rows are instructions (CLS 1)" in lines[-1]
    assert json.loads(json.dumps(report.to_json()))["problems"] == 3


def test_notes_and_unused_categories(tmp_path):
    chat = [{"role": "user", "content": "Hi"}, {"role": "user", "content": "again"}]
    rows = [{"id": f"c-{at}", "category": "QA", "messages": chat} for at in range(3)]
    text = check(Corpus(write(tmp_path / "a.jsonl", rows))).render()
    assert "note: 3 conversations cut to their first turn" in text
    assert "note: no record of category CLS, CODE, GEN, MATH, SUM" in text


def test_skipped_rows_still_count_as_wrong(tmp_path):
    file = write(tmp_path / "a.jsonl", [record(0), record(1, id="")])
    report = check(Corpus(file, ReadOptions(on_error="skip")))
    assert not report.ok
    assert report.records.total() == 1


def test_a_file_that_breaks_off_after_good_rows(tmp_path):
    write(tmp_path / "a.jsonl", [record(0)])
    (tmp_path / "b.parquet").write_bytes(b"PAR1 but no more")
    report = check(Corpus(tmp_path))
    assert not report.ok
    text = report.render()
    assert "b.parquet: cannot be read: Parquet magic bytes" in text
    assert "1 unreadable file; 1 of 1 rows are instructions (CLS 1)" in text
    assert (report.bad_rows, report.unreadable) == (0, 1)


def test_progress_is_called(tmp_path):
    rows = [{"q": "Say something."} for _ in range(2500)]
    fields = parse_fields(["instruction=q"], ["id={row}", "category=QA"])
    seen = []
    check(Corpus(write(tmp_path / "a.jsonl", rows), ReadOptions(fields=fields)), seen.append)
    assert seen == [1000, 2000]


def test_a_stream_that_breaks_off_is_no_list_of_bad_rows(monkeypatch, tmp_path):
    """A network that fails must not end in a report that looks whole."""

    def rows(data):
        yield 1, {}, None
        raise InputError("hub:o/n: cannot be read (ConnectionError)")

    monkeypatch.setattr(hub, "read_rows", rows)
    for on_error in ("stop", "skip"):
        with pytest.raises(InputError, match="ConnectionError"):
            check(Corpus("hub:o/n", ReadOptions(on_error=on_error)))
