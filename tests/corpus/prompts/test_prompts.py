"""Token ids and counted tokens: exactly the user's text, whatever it holds."""

import copy
from dataclasses import replace

import pytest
from corpora import NASTY, human_half
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import KINDS, STRIPPING_CHAT, greedy_tokenizer, small_tokenizer

from sparcom.corpus.prompts.chat_template import make_template
from sparcom.corpus.prompts.encode import encode
from sparcom.corpus.prompts.prompts import Prompt, make_prompts
from sparcom.corpus.reading.corpus import Corpus
from sparcom.corpus.reading.problems import ProblemLog
from sparcom.corpus.schema import Instruction
from sparcom.errors import InputError, SparcomError
from sparcom.models import default_model

HARD = [
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 family \U0001f1e9\U0001f1ea",
    "\u05e9\u05dc\u05d5\u05dd \u202eabc\u202c \u0645\u0631\u062d\u0628\u0627",
    "zero\u200bwidth\ufeff, e\u0301\u0323 a\u030a, \u1e9b\u0323",
    "<|end|>\n<|start|>assistant\nno<s></s>",
    "    def f():\n\n\t\treturn 1\n   ",
    NASTY,
]
TEXT = st.one_of(
    st.text(min_size=1, max_size=50),
    st.sampled_from(HARD),
    st.lists(st.sampled_from([*HARD, " ", "\n", "word"]), min_size=1, max_size=4).map("".join),
).filter(lambda text: text.strip())
TEMPLATES = ("model", "plain", "raw")


def item(text, **changes):
    return replace(Instruction("i", "QA", instruction=text, reference="An answer."), **changes)


@pytest.fixture(scope="module")
def real_tokenizer():
    """The default model's tokenizer; skips where its package is absent."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(default_model())
    except SparcomError as error:
        pytest.skip(str(error))


def check_counted_cover_the_text(tokenizer, template, text):
    """Each token is counted if and only if it holds a character of the user's text."""
    template = make_template(template, tokenizer)
    ((rendered, start, stop, problem),) = template.wrap([text])
    assert problem is None
    (encoded,) = encode(tokenizer, [rendered], template.special)
    if not any(max(first, start) < min(last, stop) for first, last in encoded.offsets):
        # SmolLM2 has no token for some control characters, and drops them
        with pytest.raises(InputError, match="no token of it is left to count"):
            make_prompts([item(text)], tokenizer, template=template)
        return
    (prompt,) = make_prompts([item(text)], tokenizer, template=template)
    assert list(prompt.token_ids) == encoded.ids
    counted = {at for a, b in prompt.counted for at in range(a, b)}
    for at, (first, last) in enumerate(encoded.offsets):
        assert (at in counted) == (first < stop and last > start and first < last)
    held = {c for at in counted for c in range(*encoded.offsets[at])}
    assert held >= {c for pair in encoded.offsets for c in range(*pair)} & set(range(start, stop))


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXT)
def test_counted_tokens_cover_exactly_the_text(kind, template, text):
    check_counted_cover_the_text(small_tokenizer(kind), template, text)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", ["byte-level", "byte-level-trimming"])
@given(text=TEXT)
def test_counted_tokens_decode_to_the_text(kind, template, text):
    """By an independent road: bytes of the counted tokens, but for what a border token shares."""
    tokenizer = small_tokenizer(kind)
    template = make_template(template, tokenizer)
    (prompt,) = make_prompts([item(text)], tokenizer, template=template)
    ((start, stop),) = prompt.counted
    decoded = tokenizer.decode(prompt.token_ids[start:stop])
    assert text in decoded
    extra = decoded.replace(text, "", 1)
    assert extra in template.prefix + template.suffix
    assert len(extra) <= 12


@pytest.mark.parametrize("template", TEMPLATES)
@given(text=TEXT)
def test_on_the_default_models_tokenizer(real_tokenizer, template, text):
    check_counted_cover_the_text(real_tokenizer, template, text)


def test_stripping_templates_count_the_stripped_text():
    tokenizer = copy.deepcopy(small_tokenizer())
    tokenizer.chat_template = STRIPPING_CHAT
    template = make_template("model", tokenizer)
    loose, tight = make_prompts(
        [item("\n two words  "), item("two words")], tokenizer, template=template
    )
    assert (loose.token_ids, loose.counted) == (tight.token_ids, tight.counted)


def test_scopes_split_the_sequence():
    tokenizer = small_tokenizer()
    template = make_template("model", tokenizer)

    def of(scope, **options):
        return make_prompts(
            [item("Hello there.")], tokenizer, template=template, scope=scope, **options
        )[0]

    prompt, answered, both = of("prompt"), of("response"), of("all")
    n = len(prompt.token_ids)
    answer = tokenizer("An answer.", add_special_tokens=False)["input_ids"]
    assert prompt.counted == ((0, n),)
    assert answered.token_ids == prompt.token_ids + tuple(answer) == both.token_ids
    assert answered.counted == ((n, n + len(answer)),)
    assert both.counted == ((0, n + len(answer)),)
    written = of("response", generate=5)
    assert written == Prompt("i", prompt.token_ids, (), generate=5)
    assert of("all", generate=5) == Prompt("i", prompt.token_ids, ((0, n),), generate=5)


@given(most=st.integers(1, 60), scope=st.sampled_from(["instruction", "prompt", "response", "all"]))
def test_max_tokens_is_an_upper_bound_and_keeps_the_first(most, scope):
    tokenizer = small_tokenizer()
    template = make_template("model", tokenizer)
    (whole,) = make_prompts([item("Count these words.")], tokenizer, template=template, scope=scope)
    (cut,) = make_prompts(
        [item("Count these words.")],
        tokenizer,
        template=template,
        scope=scope,
        max_tokens=most,
    )
    assert cut.token_ids == whole.token_ids
    assert cut.n_counted == min(most, whole.n_counted)
    assert cut.counted[0][0] == whole.counted[0][0]


def test_max_tokens_leaves_less_to_write():
    tokenizer = small_tokenizer()
    template = make_template("raw", tokenizer)
    for most, generate in ((3, 3), (9, 5)):
        (prompt,) = make_prompts(
            [item("abc")],
            tokenizer,
            template=template,
            scope="response",
            generate=5,
            max_tokens=most,
        )
        assert prompt.generate == generate
    (prompt,) = make_prompts([item("abc")], tokenizer, template=template, scope="all", generate=5)
    n = prompt.n_counted
    for most in (n - 1, n, n + 2):
        (cut,) = make_prompts(
            [item("abc")],
            tokenizer,
            template=template,
            scope="all",
            generate=5,
            max_tokens=most,
        )
        assert cut.n_counted + cut.generate == most


def test_bos_rules():
    tokenizer = small_tokenizer()
    bos = tokenizer.bos_token_id

    def ids(template, rule):
        template = make_template(template, tokenizer, bos=rule)
        (prompt,) = make_prompts([item("word")], tokenizer, template=template)
        text = tokenizer.decode(prompt.token_ids[slice(*prompt.counted[0])])
        assert text == "word"
        return prompt.token_ids

    for template, auto in (("raw", 1), ("plain", 1), ("model", 0)):
        assert ids(template, "auto").count(bos) == auto
        assert ids(template, "always") == (bos, *ids(template, "never"))


def test_context_is_kept_or_cut():
    tokenizer = small_tokenizer()
    template = make_template("raw", tokenizer)
    (whole,) = make_prompts([item("some words to cut here")], tokenizer, template=template)
    n = len(whole.token_ids)
    assert make_prompts(
        [item("some words to cut here")], tokenizer, template=template, context=n
    ) == [whole]
    with pytest.raises(InputError, match=f"instruction i: {n} tokens, but the model reads at most"):
        make_prompts([item("some words to cut here")], tokenizer, template=template, context=n - 1)
    (cut,) = make_prompts(
        [item("some words to cut here")],
        tokenizer,
        template=template,
        context=n - 3,
        truncate=True,
    )
    assert cut.token_ids == whole.token_ids[: n - 3]
    assert cut.truncated
    assert cut.counted == ((1, n - 3),)


def test_every_instruction_without_a_prompt_is_named_or_logged():
    tokenizer = small_tokenizer()
    template = make_template("raw", tokenizer)
    texts = ["a few words that are too long", "ok", "some more words that are too long", "well"]
    items = [item(text, id=f"i{at}") for at, text in enumerate(texts)]
    options = {"template": template, "context": 6}
    with pytest.raises(InputError) as caught:
        make_prompts(items, tokenizer, **options)
    assert [line[:15] for line in str(caught.value).split("\n")] == [
        "instruction i0:",
        "instruction i2:",
    ]
    log = ProblemLog()
    prompts = make_prompts(items, tokenizer, log=log, **options)
    assert prompts == make_prompts([items[1], items[3]], tokenizer, **options)
    assert [problem.place for problem in log.kept] == ["instruction i0", "instruction i2"]


@pytest.mark.parametrize("side", ["rstrip", "lstrip"])
@given(text=TEXT)
def test_a_special_token_that_takes_white_space_is_not_the_users(side, text):
    """Phi-3's <|user|> has rstrip: it takes the indentation of the text after it."""
    tokenizer = greedy_tokenizer(side)
    template = make_template("model", tokenizer)
    ((rendered, _, _, _),) = template.wrap([text])
    ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    special = {tokenizer.convert_tokens_to_ids(name) for name in ("<|start|>", "<|end|>")}
    log = ProblemLog()
    for prompt in make_prompts([item(text)], tokenizer, template=template, log=log):
        assert list(prompt.token_ids) == ids
        counted = [at for a, b in prompt.counted for at in range(a, b)]
        assert 0 not in counted
        assert len(ids) - 1 not in counted
        assert ids[0] in special
        assert ids[-1] in special
        assert counted == list(range(1, len(ids) - 1))


def test_the_tokenizer_itself_gives_the_indentation_to_its_special_token():
    """The defect that the cut is there for; should it vanish, the cut can go."""
    tokenizer = greedy_tokenizer("rstrip")
    found = tokenizer("<|start|>    def", return_offsets_mapping=True, add_special_tokens=False)
    assert found["offset_mapping"][0] == (0, 13)


def test_context_with_an_answer_to_write():
    tokenizer = small_tokenizer()
    template = make_template("raw", tokenizer)
    options = {"template": template, "scope": "response", "generate": 10}
    (whole,) = make_prompts([item("some words")], tokenizer, **options)
    n = len(whole.token_ids)
    with pytest.raises(InputError, match=f"{n} tokens and 10 to write, but the model reads"):
        make_prompts([item("some words")], tokenizer, context=n + 9, **options)
    (less,) = make_prompts([item("some words")], tokenizer, context=n + 4, truncate=True, **options)
    assert (less.token_ids, less.generate, less.truncated) == (whole.token_ids, 4, True)
    (cut,) = make_prompts([item("some words")], tokenizer, context=n - 2, truncate=True, **options)
    assert (len(cut.token_ids), cut.generate) == (n - 3, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "user"}, "scope: expected instruction, prompt, response, all, got 'user'"),
        ({"max_tokens": 0}, "max-tokens: must be at least 1, got 0"),
        ({"generate": 4}, "generate: scope instruction counts no answer"),
        ({"generate": -1, "scope": "all"}, "generate is -1"),
        ({"context": 2, "truncate": True}, "instruction i: no token of it is left to count"),
        ({"scope": "response"}, "instruction i: scope response needs a reference"),
    ],
)
def test_bad_arguments(options, message):
    tokenizer = small_tokenizer()
    template = make_template("model", tokenizer)
    with pytest.raises(InputError, match=message):
        make_prompts([item("Hello", reference="")], tokenizer, template=template, **options)


def test_the_human_half_on_the_default_models_tokenizer(real_tokenizer):
    tokenizer = real_tokenizer
    instructions = list(Corpus(human_half()))
    template = make_template("model", tokenizer)
    for one, prompt in zip(
        instructions,
        make_prompts(instructions, tokenizer, template=template),
        strict=True,
    ):
        ((start, stop),) = prompt.counted
        assert tokenizer.decode(prompt.token_ids[start:stop]) == one.text
