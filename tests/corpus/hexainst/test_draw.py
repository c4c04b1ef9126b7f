"""The draw: fixed by its seed, blind to the order of rows, without duplicates."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_files import words

from sparcom.corpus.hexainst.draw import draw, grams, interleave, jaccard, make_candidate, take
from sparcom.corpus.hexainst.recipes import Recipe, Source
from sparcom.errors import InputError


def source(**changes):
    base = {
        "name": "s",
        "category": "QA",
        "take": 6,
        "license": "MIT",
        "dataset": "o/s",
        "key": "{id}",
        "instruction": ("{q}", "Question: {q}"),
        "strata": "{kind}",
    }
    return Source(**base | changes)


RECIPE = Recipe(sources=(), seed=1, words=(3, 20), ascii=0.9, reject=(r"https?://",))
ROWS = [{"id": at, "q": words(8, at), "kind": "abc"[min(at % 5, 2)]} for at in range(200)]


@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(shuffler: random.Random):
    rows = list(ROWS)
    shuffler.shuffle(rows)
    assert draw(rows, source(), RECIPE) == draw(ROWS, source(), RECIPE)


def test_strata_are_taken_in_turn():
    taken = []
    assert take(draw(ROWS, source(), RECIPE), 6, taken) == 6
    kinds = Counter(ROWS[int(item.origin.partition("#")[2])]["kind"] for item in taken)
    assert kinds == {"a": 2, "b": 2, "c": 2}


def test_another_seed_is_another_draw():
    first = draw(ROWS, source(), RECIPE)
    second = draw(ROWS, source(), Recipe(sources=(), seed=2, words=(3, 20)))
    assert [c.record.origin for c in first[:6]] != [c.record.origin for c in second[:6]]


def test_records_carry_origin_and_licence():
    candidate = make_candidate(ROWS[0], source(), RECIPE)
    assert (candidate.record.origin, candidate.record.license) == ("o/s#0", "MIT")
    assert candidate.record.source == "human"
    hashed = make_candidate(ROWS[0], source(key="{q} {q} {q}"), RECIPE).record.origin
    assert hashed.startswith("o/s#blake2b-")


@pytest.mark.parametrize(
    ("row", "changes"),
    [
        ({"q": "short"}, {}),
        ({"q": words(21, 1)}, {}),
        ({"q": "see https://example.org for it"}, {}),
        ({"q": "ähé öüß ñøå çéè all"}, {}),
        ({"q": words(8, 1)}, {"keep": {"kind": ("b",)}}),
        ({"q": words(8, 1)}, {"must": (r"\?",)}),
        ({"q": words(8, 1), "a": ""}, {"reference": "{a}"}),
        ({"q": words(8, 1), "a": words(9, 1)}, {"reference": "{a}", "answer_words": (1, 3)}),
    ],
)
def test_filters(row, changes):
    row = {"id": 1, "kind": "a"} | row
    assert make_candidate(row, source(**changes), RECIPE) is None


def test_labels_get_their_names_and_optional_answers_may_be_absent():
    changes = {"labels": {"label": ("no", "yes")}, "reference": "{label}"}
    row = ROWS[0] | {"label": 1}
    assert make_candidate(row, source(**changes), RECIPE).record.reference == "yes"
    assert make_candidate(ROWS[0], source(reference="{a?}"), RECIPE).record.reference == ""


def test_a_source_whose_fields_have_changed_is_named():
    with pytest.raises(InputError, match="source s: none of its 200 rows has the field question"):
        draw(ROWS, source(instruction=("{question}",)), RECIPE)


def test_duplicates_near_duplicates_and_repeated_passages_are_skipped():
    text = words(18, "x")
    rows = [
        {"id": 1, "q": text, "p": ""},
        {"id": 2, "q": text.upper(), "p": ""},
        {"id": 3, "q": text + " end", "p": ""},
        {"id": 4, "q": words(8, "y"), "p": "the passage"},
        {"id": 5, "q": words(8, "z"), "p": "the  Passage"},
    ]
    plain = source(instruction=("{q}",), input="{p}", strata="")
    taken = []
    assert take(draw(rows, plain, RECIPE), 5, taken) == 2
    assert take(draw(rows, plain, RECIPE), 5, taken) == 0


def test_interleave():
    groups = [[1, 2, 3], [], [4]]
    assert list(interleave(groups)) == [1, 4, 2, 3]


@given(st.text(), st.text())
def test_jaccard_is_one_for_equal_texts_and_symmetric(a, b):
    assert jaccard(grams(a), grams(a)) == 1
    assert jaccard(grams(a), grams(b)) == jaccard(grams(b), grams(a))
