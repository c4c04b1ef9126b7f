"""References of the bundled half keep what their instructions demand, where a program can tell."""

import re

import pytest

from sparcom.corpus.hexainst.bundled import BUNDLED
from sparcom.corpus.hexainst.constraints import LINES, OTHER, WORDS, constraint_of
from sparcom.corpus.opening import load_corpus

REFERENCES = {item.id: item.reference for item in load_corpus(BUNDLED)}


@pytest.mark.parametrize("name", WORDS)
def test_length(name):
    least, most = WORDS[name]
    assert least <= len(REFERENCES[name].split()) <= most


@pytest.mark.parametrize("name", LINES)
def test_lines(name):
    lines = [line for line in REFERENCES[name].splitlines() if line.strip()]
    texts = [re.sub(r"^(- |\d+\. |(Who|What|When|Where|Why): )", "", line) for line in lines]
    assert len(lines) == LINES[name][0]
    assert max(len(text.split()) for text in texts) <= LINES[name][1]


@pytest.mark.parametrize("name", OTHER)
def test_other_demands(name):
    assert OTHER[name](REFERENCES[name])


@pytest.mark.parametrize("name", ["SUM-ai-013", "QA-ai-004"])
def test_sentences_asked_for_word_for_word_are_in_the_passage(name):
    (item,) = (item for item in load_corpus(BUNDLED) if item.id == name)
    for sentence in item.reference.splitlines():
        assert sentence in item.input


@pytest.mark.parametrize("name", sorted({*WORDS, *LINES, *OTHER}))
def test_references_keep_all_that_is_demanded_and_no_answer_keeps_nothing(name):
    keeps = constraint_of(name)
    assert keeps(REFERENCES[name])
    assert not keeps("")
    assert not keeps("a loss?! " * 250)  # too long, no list, no dialogue, a word that is banned


def test_no_demand_is_known_of_other_records():
    assert constraint_of("QA-ai-001") is None
