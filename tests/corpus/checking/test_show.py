"""A shown prompt has every token, and marks the counted ones."""

import pytest
from corpora import NASTY, record, write
from small_tokenizers import small_tokenizer

from sparcom.corpus.checking.show import CLOSE, OPEN, find_instruction, show
from sparcom.corpus.prompts.chat_template import make_template
from sparcom.corpus.prompts.prompts import make_prompts
from sparcom.corpus.reading.corpus import Corpus
from sparcom.errors import InputError


def shown(tmp_path, **options):
    corpus = Corpus(write(tmp_path / "a.jsonl", [record(0), record(1, instruction=NASTY)]))
    instruction = find_instruction(corpus, "r-1")
    tokenizer = small_tokenizer()
    template = make_template("model", tokenizer)
    (prompt,) = make_prompts([instruction], tokenizer, template=template, **options)
    return instruction, prompt, show(instruction, prompt, tokenizer)


def test_brackets_are_around_the_users_text(tmp_path):
    instruction, prompt, one = shown(tmp_path)
    assert one.rendered.partition(OPEN)[2].partition(CLOSE)[0] == instruction.text
    assert one.rendered.replace(OPEN, "").replace(CLOSE, "") == small_tokenizer().decode(
        prompt.token_ids
    )
    assert [token for token, _, _ in one.tokens] == list(prompt.token_ids)
    assert sum(counted for _, _, counted in one.tokens) == prompt.n_counted


def test_nothing_invisible_is_printed(tmp_path):
    _, prompt, one = shown(tmp_path, scope="all", generate=7)
    text = one.render()
    assert not {"\u202e", "\u200b", "\x1b", "\x00"} & set(text)
    assert f"{prompt.n_counted} counted, and up to 7 of the model's own answer" in text
    assert text.count("counted\n") + text.endswith("counted") >= prompt.n_counted
    assert one.to_json()["n_tokens"] == len(prompt.token_ids)


def test_truncation_is_said(tmp_path):
    assert "cut to fit the model" in shown(tmp_path, context=20, truncate=True)[2].render()


def test_an_unknown_id(tmp_path):
    corpus = Corpus(write(tmp_path / "a.jsonl", [record(0)]))
    with pytest.raises(
        InputError, match="no instruction has the id 'r-9' \\(the first is 'r-0'\\)"
    ):
        find_instruction(corpus, "r-9")
