"""What a template puts around the user's text, and the templates that cannot be used."""

import copy
import datetime as dt

import pytest
from corpora import NASTY
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import CHAT, STRIPPING_CHAT, small_tokenizer

from sparcom.corpus.prompts.chat_template import make_template
from sparcom.corpus.prompts.prompts import make_prompts
from sparcom.corpus.schema import Instruction
from sparcom.errors import InputError

FALCON = (
    r"{% for m in messages %}{{ 'User: ' + m['content'].strip().replace('\r\n', '\n')"
    r".replace('\n\n', '\n') }}{% endfor %}{{ '\nAssistant:' }}"
)
DATED = (
    "{% set today = strftime_now('%d %b %Y') if strftime_now is defined else 'unknown' %}"
    "<|start|>Today Date: {{ today }}\n{{ messages[-1]['content'] }}<|end|>"
)
CHATS = {"plain": CHAT, "stripping": STRIPPING_CHAT, "squeezing": FALCON}


def with_chat(template):
    tokenizer = copy.deepcopy(small_tokenizer())
    tokenizer.chat_template = template
    return tokenizer


def wrapped(template, text):
    ((rendered, start, stop, problem),) = template.wrap([text])
    assert problem is None
    return rendered, start, stop


def test_a_chat_template_with_and_without_a_system_prompt():
    template = make_template("model", small_tokenizer())
    assert template.prefix == "<|start|>user\n"
    assert template.suffix == "<|end|>\n<|start|>assistant\n"
    assert not template.special
    template = make_template("model", small_tokenizer(), system="Be brief.")
    assert template.prefix == "<|start|>system\nBe brief.<|end|>\n<|start|>user\n"


def test_a_template_that_strips():
    template = make_template("model", with_chat(STRIPPING_CHAT))
    assert wrapped(template, " \n text ") == ("<s>[INST] text [/INST]", 10, 14)


def test_plain_and_raw():
    template = make_template("plain", small_tokenizer(), system="Be brief.")
    assert wrapped(template, "x")[0] == "Be brief.\n\nInstruction:\nx\n\nResponse:\n"
    assert template.special
    assert wrapped(make_template("raw", small_tokenizer()), " x ") == (" x ", 0, 3)


def test_from_takes_the_donors_template():
    base = with_chat(None)
    assert make_template("from:tuned", base, donor=small_tokenizer()) == make_template(
        "model", small_tokenizer()
    )


TEXT = st.lists(
    st.sampled_from(["word", " ", "\n", "\n\n", "\r\n", "    ", "def f():", NASTY, "<|end|>"])
    | st.text(max_size=8),
    max_size=8,
).map("".join)


@pytest.mark.parametrize("chat", CHATS)
@given(text=TEXT)
def test_token_ids_are_those_of_the_models_own_rendering(chat, text):
    """Whatever the template does to the text: transformers renders it, and the ids are equal."""
    tokenizer = with_chat(CHATS[chat])
    template = make_template("model", tokenizer)
    message = [{"role": "user", "content": text}]
    expected = tokenizer.apply_chat_template(message, add_generation_prompt=True)["input_ids"]
    item = Instruction("i", "QA", instruction=text)
    (prompt,) = make_prompts([item], tokenizer, template=template, scope="prompt")
    assert list(prompt.token_ids) == expected


def test_a_text_that_the_template_squeezes_is_counted_as_it_is_read():
    """Falcon's: blank lines vanish, and what is left of the user's text is what is counted."""
    template = make_template("model", with_chat(FALCON))
    rendered, start, stop = wrapped(template, "\na\n\n\n    b\r\n\r\nc \n")
    assert rendered[start:stop] == "a\n\n    b\nc"
    tokenizer = with_chat(FALCON)
    item = Instruction("i", "QA", instruction="a\n\n    b")
    (prompt,) = make_prompts([item], tokenizer, template=template)
    ((first, last),) = prompt.counted
    assert tokenizer.decode(prompt.token_ids[first:last]).lstrip() == "a\n    b"


@pytest.mark.parametrize(
    ("chat", "text", "problem"),
    [
        ("{{ 'Say: ' + messages[0]['content'] | replace('!', '.') }}", "Hi!", "rewrites it"),
        ("{{ messages[0]['content'] | replace('&', '&amp;') }}", "a & b", "rewrites it"),
        (
            "{{ 'code ' if 'def' in messages[0]['content'] }}U: {{ messages[0]['content'] }} A:",
            "def f(): pass",
            "surrounds it with another text",
        ),
        (
            "{% if 'no' in messages[0]['content'] %}{{ raise_exception('not that') }}{% endif %}"
            "{{ messages[0]['content'] }}",
            "no",
            "refuses it: TemplateError: not that",
        ),
    ],
)
def test_a_text_whose_rendering_is_of_another_kind_is_refused_by_name(chat, text, problem):
    tokenizer = with_chat(chat)
    template = make_template("model", tokenizer)
    good, bad = (Instruction(i, "QA", instruction=t) for i, t in (("good", "yes"), ("bad", text)))
    with pytest.raises(InputError, match=f"^instruction bad: its text cannot be used: .*{problem}"):
        make_prompts([good, bad], tokenizer, template=template)


def test_a_date_stays_the_one_that_is_given():
    """Llama 3.2 and Mistral Small write today's date; a run resumed tomorrow must not."""
    tokenizer = with_chat(DATED)
    template = make_template("model", tokenizer, date=dt.date(2024, 2, 29))
    assert wrapped(template, "x")[0] == "<|start|>Today Date: 29 Feb 2024\nx<|end|>"
    today = make_template("model", tokenizer)
    message = [{"role": "user", "content": "x"}]
    assert wrapped(today, "x")[0] == tokenizer.apply_chat_template(message, tokenize=False)


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
        ("model", "{{ messages[0]['content'] * 2 }}", None, "repeats the user's text"),
        ("model", "{{ raise_exception('no system here') }}", "x", "no system here"),
        ("model", "{% if %}", None, "TemplateSyntaxError"),
        ("model", "{{ messages[0].content.__class__.__mro__ }}", None, "SecurityError"),
    ],
)
def test_templates_that_cannot_be_used(template, chat, system, message):
    with pytest.raises(InputError, match=message):
        make_template(template, with_chat(chat), system=system)


LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
GIGABYTES = {
    "by a product": "{{ 'x' * 10000000000 }}",
    "by doubling": "{% set n = namespace(s='x' * 99999) %}{% for i in range(60) %}"
    "{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
    "by lines": "{% for i in range(99999) %}{{ 'x' * 999 }}{% endfor %}",
    "by a filter": "{{ 'x' | center(3000000000) }}",
    "when it is compiled": "{{ ('x' * 1000000000) * 1000000000 }}",
}


def test_a_template_that_does_not_end_is_refused():
    with pytest.raises(InputError, match="template model: rendering takes more than 1 s"):
        make_template("model", with_chat(LOOP))
    assert make_template("model", small_tokenizer()).prefix == "<|start|>user\n"


@pytest.mark.parametrize("how", GIGABYTES)
def test_a_template_that_builds_gigabytes_is_refused(how):
    chat = GIGABYTES[how] + "{{ messages[0]['content'] }}"
    reasons = r"(MemoryError|OverflowError|it writes|rendering takes more than)"
    with pytest.raises(InputError, match=rf"template model: {reasons}"):
        make_template("model", with_chat(chat))
    assert make_template("model", small_tokenizer()).prefix == "<|start|>user\n"


def test_a_template_that_loops_for_one_text_only_is_refused():
    chat = "{% if 'now' in messages[0]['content'] %}" + LOOP + "{% endif %}"
    template = make_template("model", with_chat(chat + "{{ messages[0]['content'] }}"))
    with pytest.raises(InputError, match="takes more than 1 s"):
        list(template.wrap(["then", "now"]))


def test_a_tokenizer_that_renders_by_itself_is_refused():
    class Own(type(small_tokenizer())):
        def apply_chat_template(self, *arguments, **options):
            raise AssertionError("it was called")

    own = copy.deepcopy(small_tokenizer())
    own.__class__ = Own
    with pytest.raises(InputError, match="renders chats with code of its own"):
        make_template("model", own)


def test_bos_needs_a_token_and_a_known_rule():
    with pytest.raises(InputError, match="bos: expected auto, always, never, got 'on'"):
        make_template("raw", small_tokenizer(), bos="on")
    tokenizer = copy.deepcopy(small_tokenizer())
    tokenizer.bos_token = None
    with pytest.raises(InputError, match="no beginning-of-sequence token"):
        make_template("raw", tokenizer, bos="always")
