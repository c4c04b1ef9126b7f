"""Estimated similarities against exact ones, and the pairs that are found."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparcom.corpus.checking.near import BATCH, NearDuplicates, signatures_of
from sparcom.corpus.hexainst.draw import grams, jaccard


def variants(seed, n, length):
    """Pairs of texts with every degree of likeness."""
    rng = random.Random(seed)
    vocabulary = [f"word{at}" for at in range(300)]
    pairs = []
    for _ in range(n):
        words = rng.choices(vocabulary, k=length)
        changed = list(words)
        for _ in range(rng.randrange(8)):
            changed[rng.randrange(length)] = rng.choice(vocabulary)
        pairs.append((" ".join(words), " ".join(changed)))
    return pairs


@pytest.mark.parametrize("length", [3, 8, 40, 200])
def test_estimates_are_unbiased_and_as_exact_as_promised(length):
    pairs = variants(length, 600, length)
    a = signatures_of([first for first, _ in pairs])
    b = signatures_of([second for _, second in pairs])
    error = (a == b).mean(1) - [jaccard(grams(x), grams(y)) for x, y in pairs]
    assert abs(error.mean()) < 0.01
    assert error.std() < 0.0625


@given(st.lists(st.text(max_size=40), min_size=1, max_size=9), st.integers(0, 9))
def test_a_signature_does_not_depend_on_its_batch(texts, at):
    whole = signatures_of(texts)
    parts = [signatures_of(part) for part in (texts[:at], texts[at:]) if part]
    assert (np.concatenate(parts) == whole).all()


def test_case_and_punctuation_do_not_matter():
    a, b, c = signatures_of(["One two, three four!", "one TWO three   four", "one two three five"])
    assert (a == b).all()
    assert (a == c).mean() < 0.8


def test_planted_duplicates_are_found_once_each():
    pairs = [
        (first, second)
        for first, second in variants(1, 2 * BATCH, 60)
        if jaccard(grams(first), grams(second)) >= 0.9
    ]
    near = NearDuplicates()
    for first, _ in pairs:
        near.add(first)
    for _, second in pairs:
        near.add(second)
    found = near.pairs(0.7)
    assert {(pair.first, pair.second) for pair in found} == {
        (at, at + len(pairs)) for at in range(len(pairs))
    }


def test_a_family_of_equal_texts_gives_one_pair_less_than_it_has_members():
    near = NearDuplicates()
    for text in ["other words stand here", *["the very same text here"] * 50]:
        near.add(text)
    found = near.pairs(1.0)
    assert [pair.second for pair in found] == list(range(2, 51))
    assert {pair.first for pair in found} == {1}


def test_texts_without_a_word_are_like_no_other():
    near = NearDuplicates()
    for text in ("!!!", "???", "", "one", "One."):
        near.add(text)
    assert [(pair.first, pair.second) for pair in near.pairs(0.5)] == [(3, 4)]
    assert NearDuplicates().pairs(0.5) == []
