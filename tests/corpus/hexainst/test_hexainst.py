"""The bundled half keeps its promises, and `hexainst` means what was built last."""

import itertools
import json
from collections import Counter
from importlib.resources import files

import pytest
from corpora import human_half, record, write

from sparcom.corpus.hexainst.build import BuildOptions, build_corpus
from sparcom.corpus.hexainst.bundled import BUNDLED
from sparcom.corpus.hexainst.draw import grams, jaccard
from sparcom.corpus.opening import load_corpus, open_corpus
from sparcom.corpus.reading.corpus import ReadOptions
from sparcom.corpus.schema import CATEGORIES
from sparcom.errors import InputError

GRID = ("task_kind", "domain", "length_class", "output_format", "difficulty", "with_input")


@pytest.fixture(scope="module")
def bundled():
    return load_corpus(BUNDLED)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARCOM_CACHE", str(tmp_path / "cache"))


def of(bundled, category):
    return [item for item in bundled if item.category == category]


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_hundred_complete_records(bundled, category):
    records = of(bundled, category)
    assert [item.id for item in records] == [f"{category}-ai-{at:03d}" for at in range(1, 101)]
    for item in records:
        assert (item.source, item.license) == ("ai", "Apache-2.0")
        assert item.reference.strip(), item.id
        assert 10 <= len(item.text.split()) <= 450, item.id


def test_no_pair_is_over_half_alike(bundled):
    shapes = [(item.id, grams(item.text)) for item in bundled]
    worst = max((jaccard(a, b), x, y) for (x, a), (y, b) in itertools.combinations(shapes, 2))
    assert worst[0] <= 0.5, worst


@pytest.mark.parametrize("category", CATEGORIES)
def test_ninety_distinct_openings(bundled, category):
    openings = {" ".join(item.instruction.lower().split()[:3]) for item in of(bundled, category)}
    assert len(openings) >= 90


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_grid_is_covered_and_true(bundled, category):
    """Each record has one grid entry; they span task kinds, domains, lengths and formats."""
    text = (
        files("sparcom.corpus.hexainst") / "data" / "hexainst" / f"{category}.grid.jsonl"
    ).read_text()
    entries = [json.loads(line) for line in text.splitlines()]
    records = of(bundled, category)
    assert [entry["id"] for entry in entries] == [item.id for item in records]
    for entry, item in zip(entries, records, strict=True):
        assert set(entry) == {"id", *GRID}
        words = len(item.text.split())
        expected = "short" if words < 30 else "medium" if words < 100 else "long"
        assert (entry["length_class"], entry["with_input"]) == (expected, bool(item.input)), item.id
    spread = {name: len({entry[name] for entry in entries}) for name in GRID}
    assert spread["task_kind"] >= 12
    assert spread["domain"] >= 20
    assert spread["output_format"] >= 6
    assert spread["difficulty"] == 3


@pytest.mark.parametrize("category", CATEGORIES)
def test_lengths_are_like_those_of_the_human_half(bundled, category):
    human = load_corpus(str(human_half() / f"{category}.jsonl"))
    for decile in (20, 50, 80):
        ours, theirs = (
            sorted(len(item.text.split()) for item in half)[decile]
            for half in (of(bundled, category), human)
        )
        assert 0.6 < ours / theirs < 1.7, (decile, ours, theirs)


def test_hexainst_is_the_bundled_half_until_one_is_built(tmp_path):
    assert {item.source for item in load_corpus("hexainst")} == {"ai"}
    ready = write(tmp_path / "ready.jsonl", [record(at, id=f"h-{at}") for at in range(600)])
    build_corpus(options=BuildOptions(human=str(ready)))
    both = load_corpus("hexainst")
    assert Counter(item.source for item in both) == {"human": 600, "ai": 600}
    assert {item.source for item in load_corpus("hexainst-ai")} == {"ai"}


def test_limit_is_per_category():
    counts = Counter(item.category for item in load_corpus("hexainst-ai", limit=3))
    assert counts == dict.fromkeys(CATEGORIES, 3)
    with pytest.raises(InputError, match="limit: must be at least 1"):
        load_corpus("hexainst", limit=0)


def test_open_corpus_takes_paths_and_options(tmp_path):
    file = write(tmp_path / "a.csv", [record(0, category="mine")])
    corpus = open_corpus(str(file), ReadOptions(categories=None))
    assert [item.category for item in corpus] == ["mine"]
    assert [item.category for item in load_corpus(str(file), None)] == ["mine"]


def test_a_recipe_of_the_user_needs_a_folder(tmp_path):
    with pytest.raises(InputError, match="out: name the folder"):
        build_corpus(str(tmp_path / "my.toml"))
    with pytest.raises(InputError, match=r"recipe .*my\.toml: cannot be read"):
        build_corpus(str(tmp_path / "my.toml"), tmp_path / "out")
