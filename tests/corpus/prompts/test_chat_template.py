"""What a template puts around the user's text, and the templates that cannot be used."""

import copy

import pytest
from small_tokenizers import CHAT, STRIPPING_CHAT, small_tokenizer

from sparcom.corpus.prompts.chat_template import make_template
from sparcom.errors import InputError


def with_chat(template):
    tokenizer = copy.deepcopy(small_tokenizer())
    tokenizer.chat_template = template
    return tokenizer


def test_chat_frame_with_and_without_a_system_prompt():
    template = make_template("model", small_tokenizer())
    assert template.prefix == "<|start|>user\n"
    assert template.suffix == "<|end|>\n<|start|>assistant\n"
    assert (template.strips, template.special) == (False, False)
    template = make_template("model", small_tokenizer(), system="Be brief.")
    assert template.prefix == "<|start|>system\nBe brief.<|end|>\n<|start|>user\n"


def test_a_template_that_strips():
    template = make_template("model", with_chat(STRIPPING_CHAT))
    assert template.strips
    assert template.wrap(" \n text ") == ("<s>[INST] text [/INST]", 10, 14)


def test_plain_and_raw_frames():
    template = make_template("plain", small_tokenizer(), system="Be brief.")
    assert template.wrap("x")[0] == "Be brief.\n\nInstruction:\nx\n\nResponse:\n"
    assert template.special
    assert make_template("raw", small_tokenizer()).wrap(" x ") == (" x ", 0, 3)


def test_from_takes_the_donors_template():
    base = with_chat(None)
    assert make_template("from:tuned", base, donor=small_tokenizer()) == make_template(
        "model", small_tokenizer()
    )


@pytest.mark.parametrize(
    ("template", "chat", "system", "message"),
    [
        ("modell", CHAT, None, "expected model, plain, raw or from:MODEL, got 'modell'"),
        ("model", None, None, "has no chat template"),
        ("from:x", CHAT, None, "has no chat template"),
        ("model", "{{ messages[0]['role'] }}", None, "drops the user's text"),
        ("model", "{{ messages[-1]['content'] }}", "Be brief.", "drops the system prompt"),
        ("model", "{{ messages[-1]['content'] | upper }}", None, "drops the user's text"),
        ("model", "{{ messages[-1]['content'] | replace(' ', '_') }}", None, "rewrites the user's"),
        ("model", "{{ raise_exception('no system here') }}", "x", "no system here"),
    ],
)
def test_templates_that_cannot_be_used(template, chat, system, message):
    with pytest.raises(InputError, match=message):
        make_template(template, with_chat(chat), system=system)


def test_bos_needs_a_token_and_a_known_rule():
    with pytest.raises(InputError, match="bos: expected auto, always, never, got 'on'"):
        make_template("raw", small_tokenizer(), bos="on")
    tokenizer = copy.deepcopy(small_tokenizer())
    tokenizer.bos_token = None
    with pytest.raises(InputError, match="no beginning-of-sequence token"):
        make_template("raw", tokenizer, bos="always")
