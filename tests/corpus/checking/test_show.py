"""A shown prompt has every token, and marks the counted ones."""

import pytest
from corpora import NASTY, record, write
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import KINDS, greedy_tokenizer, small_tokenizer

from sparcom.corpus.checking.show import CLOSE, OPEN, find_instruction, show
from sparcom.corpus.prompts.chat_template import make_template
from sparcom.corpus.prompts.prompts import make_prompts
from sparcom.corpus.reading.corpus import Corpus
from sparcom.corpus.schema import Instruction
from sparcom.errors import InputError


def shown(tmp_path, **options):
    corpus = Corpus(write(tmp_path / "a.jsonl", [record(0), record(1, instruction=NASTY)]))
    instruction = find_instruction(corpus, "r-1")
    tokenizer = small_tokenizer()
    template = make_template("model", tokenizer)
    (prompt,) = make_prompts([instruction], tokenizer, template=template, **options)
    return instruction, prompt, show(instruction, prompt, tokenizer, template)


def test_brackets_are_around_the_users_text(tmp_path):
    instruction, prompt, one = shown(tmp_path)
    assert one.rendered.partition(OPEN)[2].partition(CLOSE)[0] == instruction.text
    assert one.rendered.replace(OPEN, "").replace(CLOSE, "") == small_tokenizer().decode(
        prompt.token_ids
    )
    assert [token.id for token in one.tokens] == list(prompt.token_ids)
    assert sum(token.counted for token in one.tokens) == prompt.n_counted


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


def test_what_lies_outside_is_shown_too():
    """BOS that the tokenizer adds, markup of the template, special tokens, and the answer."""
    item = Instruction("i", "QA", instruction="Sort these.", reference="Done.")
    tokenizer = small_tokenizer()
    for name, bos, expected in (
        ("raw", "auto", "<s>⟦Sort these.⟧Done."),
        ("plain", "auto", "<s>Instruction:\n⟦Sort these.⟧\n\nResponse:\nDone."),
        ("model", "always", "<s><|start|>user\n⟦Sort these.⟧<|end|>\n<|start|>assistant\nDone."),
    ):
        template = make_template(name, tokenizer, bos=bos)
        (prompt,) = make_prompts([item], tokenizer, template=template)
        one = show(item, prompt, tokenizer, template)
        assert one.rendered == expected.removesuffix("Done.")
        (prompt,) = make_prompts([item], tokenizer, template=template, scope="response")
        one = show(item, prompt, tokenizer, template)
        assert one.rendered == expected.replace("⟦", "").replace("⟧", "")[:-5] + "⟦Done.⟧"
        assert one.tokens[0][1:] == ("<s>", "special", False)
        assert {token.part for token in one.tokens if token.counted} == {"answer"}
        shared = {t.part for t in one.tokens if t.text in ("Sort", " these", "S", "these")}
        assert shared <= {"text"}


def test_white_space_that_a_special_token_takes_is_outside():
    item = Instruction("i", "QA", instruction="    def f()")
    tokenizer = greedy_tokenizer("rstrip")
    template = make_template("model", tokenizer)
    (prompt,) = make_prompts([item], tokenizer, template=template)
    assert show(item, prompt, tokenizer, template).rendered == "<|start|>    ⟦def f()⟧<|end|>"


@pytest.mark.parametrize("template", ["model", "plain", "raw"])
@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(min_size=1, max_size=30).filter(lambda text: text.strip()))
def test_no_character_is_lost_or_shown_twice(kind, template, text):
    tokenizer = small_tokenizer(kind)
    made = make_template(template, tokenizer)
    ((rendered, _, _, _),) = made.wrap([text])
    item = Instruction("i", "QA", instruction=text)
    (prompt,) = make_prompts([item], tokenizer, template=made)
    shown = show(item, prompt, tokenizer, made).rendered
    bos = "<s>" if made.special else ""
    kept = rendered.replace(OPEN, "").replace(CLOSE, "")
    assert shown.replace(OPEN, "").replace(CLOSE, "") == bos + kept


def test_a_prompt_of_another_template_is_refused(tmp_path):
    instruction, prompt, _ = shown(tmp_path)
    with pytest.raises(InputError, match="the prompt of r-1 is of another template"):
        show(instruction, prompt, small_tokenizer(), make_template("raw", small_tokenizer()))
