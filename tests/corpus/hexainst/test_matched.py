"""hexainst-matched: content and length cancel by design, and every reference is right."""

import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import combinations
from statistics import median

import pytest

from sparcom.corpus.hexainst.bundled import bundled_folder
from sparcom.corpus.hexainst.draw import grams, jaccard
from sparcom.corpus.opening import load_corpus
from sparcom.corpus.schema import CATEGORIES

NAMES = ("hexainst-matched", "hexainst-matched-paraphrased")


def rows(name: str) -> list[dict]:
    """The records with what is beside the schema: kind, domain, check."""
    lines = [s for c in CATEGORIES for s in (bundled_folder(name) / f"{c}.jsonl").open()]
    return [json.loads(line) for line in lines]


RECORDS = [row for name in NAMES for row in rows(name)]
BY_PASSAGE = defaultdict(dict)
for _row in rows(NAMES[0]):
    BY_PASSAGE[_row["origin"]][_row["category"]] = _row


def records(category: str) -> list[dict]:
    return [row for row in RECORDS if row["category"] == category]


@pytest.mark.parametrize("name", NAMES)
def test_every_passage_has_every_type_once(name: str) -> None:
    corpus = load_corpus(name)
    assert len(corpus) == 300
    assert Counter(item.category for item in corpus) == dict.fromkeys(CATEGORIES, 50)
    by_passage = defaultdict(list)
    for item in corpus:
        by_passage[item.origin, item.input].append(item.category)
    assert len(by_passage) == 50
    assert all(sorted(found) == sorted(CATEGORIES) for found in by_passage.values())


@pytest.mark.parametrize("name", NAMES)
def test_instructions_of_all_types_are_of_like_length(name: str) -> None:
    words = {c: [len(r["instruction"].split()) for r in rows(name) if r["category"] == c]
             for c in CATEGORIES}  # fmt: skip
    medians = [median(found) for found in words.values()]
    assert max(medians) - min(medians) <= 2
    assert min(map(min, words.values())) >= 12
    assert max(map(max, words.values())) <= 40


def test_paraphrases_ask_the_same_in_other_words() -> None:
    first, second = (rows(name) for name in NAMES)
    for one, other in zip(first, second, strict=True):
        same = ("category", "input", "reference", "kind", "check", "origin")
        assert [one[k] for k in same] == [other[k] for k in same]
        assert jaccard(grams(one["instruction"]), grams(other["instruction"])) < 0.5
        lengths = [len(r["instruction"].split()) for r in (one, other)]
        assert 0.7 <= lengths[1] / lengths[0] <= 1.3


def test_no_two_instructions_are_alike() -> None:
    shapes = [grams(row["instruction"]) for row in rows(NAMES[0])]
    assert max(jaccard(a, b) for a, b in combinations(shapes, 2)) < 0.3


@pytest.mark.parametrize("row", records("CLS"), ids=lambda r: r["id"])
def test_labels_are_named_and_the_reference_is_one_of_them(row: dict) -> None:
    check = row["check"]
    assert row["reference"] == check["label"]
    assert check["label"] in check["labels"]
    assert all(label.lower() in row["instruction"].lower() for label in check["labels"])


@pytest.mark.parametrize("row", records("QA"), ids=lambda r: r["id"])
def test_answers_stand_in_the_passage(row: dict) -> None:
    answer = row["check"]["answer"]
    assert answer in row["input"]
    assert answer in row["reference"]
    assert answer not in row["instruction"]


@pytest.mark.parametrize("row", records("MATH"), ids=lambda r: r["id"])
def test_answers_are_what_their_expression_gives(row: dict) -> None:
    check = row["check"]
    assert re.fullmatch(r"[\d\s.+\-*/()]+", check["expression"])
    exact = re.sub(r"\d+(\.\d+)?", lambda m: f"Fraction('{m[0]}')", check["expression"])
    value = eval(exact, {"Fraction": Fraction})  # the pattern above lets numbers through only
    assert value == Fraction(check["answer"].replace(",", ""))
    assert row["reference"].rstrip(". ").endswith(check["answer"])


def test_code_references_pass_their_tests_and_a_stub_does_not() -> None:
    """Each in a namespace of its own, all in one process without this one's modules."""
    code = [
        "import json, sys",
        "for reference, tests in json.load(sys.stdin):",
        "    space = {}",
        "    exec(reference, space)",
        "    for test in tests:",
        "        exec(test, space)",
        "    names = [n for n, v in space.items() if callable(v) and not n.startswith('_')]",
        "    space.update({n: lambda *a, **k: None for n in names})",
        "    try:",
        "        [exec(test, space) for test in tests]",
        "    except Exception:",
        "        continue",
        "    raise SystemExit('a stub passes: ' + reference)",
    ]

    found = [row for row in rows(NAMES[0]) if row["category"] == "CODE"]
    given = json.dumps([[row["reference"], row["check"]["tests"]] for row in found])
    assert all(len(row["check"]["tests"]) >= 3 for row in found)
    done = subprocess.run(
        [sys.executable, "-I", "-c", "\n".join(code)], input=given, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


HOLDS = {
    "max_words": lambda text, value: len(text.split()) <= value,
    "min_words": lambda text, value: len(text.split()) >= value,
    "lines": lambda text, value: len([x for x in text.splitlines() if x.strip()]) == value,
    "must_include": lambda text, value: value in text,
    "must_not_include": lambda text, value: value.lower() not in text.lower(),
    "starts_with": lambda text, value: text.startswith(value),
    "ends_with": lambda text, value: text.endswith(value),
}


@pytest.mark.parametrize("row", [*records("GEN"), *records("SUM")], ids=lambda r: r["id"])
def test_references_keep_their_constraints(row: dict) -> None:
    assert row["check"]["constraints"]
    for constraint in row["check"]["constraints"]:
        assert HOLDS[constraint["type"]](row["reference"], constraint["value"]), constraint
    numbers = set(re.findall(r"\d+", row["reference"]))
    if row["category"] == "SUM":
        assert numbers <= set(re.findall(r"\d+", row["input"])), "a number that the passage lacks"


def test_plain_texts_ask_for_nothing() -> None:
    texts = load_corpus("plain-text", None)
    assert len(texts) == 100
    assert {item.category for item in texts} == {"TEXT"}
    assert not [item.id for item in texts if "?" in item.instruction or item.input]
    assert all(60 <= len(item.instruction.split()) <= 160 for item in texts)
    passages = [grams(one["CLS"]["input"]) for one in BY_PASSAGE.values()]
    shapes = [grams(item.instruction) for item in texts]
    assert max(jaccard(a, b) for a, b in combinations([*passages, *shapes], 2)) < 0.05
