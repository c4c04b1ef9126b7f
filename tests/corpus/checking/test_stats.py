"""The figures of `stats`, against figures counted by hand."""

import json
import math

import pytest
from corpora import human_half, record, write

from sparcom.corpus.checking.stats import stats
from sparcom.corpus.reading.corpus import Corpus, ReadOptions
from sparcom.errors import InputError

LONG = " ".join(f"word{at}" for at in range(40))


def test_counts_lengths_and_duplicates(tmp_path):
    rows = [
        record(0, instruction="one two three", reference=""),
        record(6, instruction="one two  THREE"),
        record(12, instruction="one two three four five", source="ai"),
        record(1, instruction="Do this:", input=LONG),
        record(7, instruction="Do this:", input=LONG + " more"),
    ]
    result = stats(Corpus(write(tmp_path / "a.jsonl", rows)))
    assert (result.records, result.categories) == (5, {"CLS": 3, "CODE": 2})
    assert result.breakdown["CLS", "ai"] == 1
    assert (result.with_input["CODE"], result.with_reference["CLS"]) == (2, 2)
    assert result.openings == {"CLS": 1, "CODE": 1}
    cls = result.lengths["CLS"]
    assert (cls.least, cls.median, cls.most) == (3, 3, 5)
    assert cls.mean == pytest.approx(11 / 3)
    assert result.duplicates == 1
    assert [pair[:2] for pair in result.near_pairs] == [("r-0", "r-6"), ("r-1", "r-7")]
    assert result.near == 2
    shares = (3 / 5, 2 / 5)
    assert result.balance == pytest.approx(-sum(p * math.log2(p) for p in shares))


def test_report_and_json(tmp_path):
    rows = [record(at, source="\u202eevil") for at in range(6)]
    result = stats(Corpus(write(tmp_path / "a.jsonl", rows)))
    text = result.render()
    assert "\u202e" not in text
    assert "6 records, balance 1.000" in text
    assert "6  CC0-1.0" in text
    plain = json.loads(json.dumps(result.to_json()))
    assert plain["categories"]["QA"]["records"] == 1


def test_skipped_rows_are_told(tmp_path):
    file = write(tmp_path / "a.jsonl", [record(0), record(0)])
    result = stats(Corpus(file, ReadOptions(on_error="skip")))
    assert (result.records, result.skipped) == (1, 1)
    assert "1 bad rows skipped" in result.render()


def test_bad_bar(tmp_path):
    with pytest.raises(InputError, match=r"near: expected a similarity from 0\.5 to 1, got 0\.2"):
        stats(Corpus(write(tmp_path / "a.jsonl", [record(0)])), near_bar=0.2)


def test_the_human_half():
    result = stats(Corpus(human_half()), near_bar=0.5)
    assert set(result.categories.values()) == {100}
    assert result.balance == pytest.approx(1)
    assert result.lengths["CLS"].mean == pytest.approx(64.0, abs=0.05)
    assert result.lengths["SUM"].most == 447
    assert result.duplicates == 0
