"""Every token knows its characters, also where the tokenizer itself would trim them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import KINDS, small_tokenizer

from sparcom.corpus.prompts.encode import covering, encode
from sparcom.errors import InputError

TEXT = st.text(max_size=60) | st.sampled_from(
    ["    indented\n\n\tcode ", "a \n b", " ", "<|end|> x"]
)


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXT)
def test_ids_are_those_of_the_tokenizer(kind, text):
    tokenizer = small_tokenizer(kind)
    for special in (False, True):
        (encoded,) = encode(tokenizer, [text], special)
        assert encoded.ids == tokenizer(text, add_special_tokens=special)["input_ids"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("byte")])
@given(text=TEXT)
def test_every_character_is_held_by_a_token(kind, text):
    (encoded,) = encode(small_tokenizer(kind), [text], special=True)
    held = {at for first, last in encoded.offsets for at in range(first, last)}
    assert held == set(range(len(text)))


def test_the_tokenizer_itself_would_lose_white_space():
    """The defect that the copy is there for; should it vanish, the copy can go."""
    text = "a\n\n        b"
    plain = small_tokenizer("byte-level-trimming")(text, return_offsets_mapping=True)
    held = {at for first, last in plain["offset_mapping"] for at in range(first, last)}
    assert held != set(range(len(text)))


def test_padding_and_truncation_of_the_tokenizer_are_left_aside():
    tokenizer = small_tokenizer("byte-level")
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    try:
        (encoded,) = encode(tokenizer, ["a longer text than three tokens"], special=False)
        assert 3 < len(encoded.ids) < 50
    finally:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()


def test_more_texts_than_a_chunk():
    texts = [f"text {at}" for at in range(2500)]
    got = list(encode(small_tokenizer(), texts, special=False))
    assert [one.offsets[-1][1] for one in got] == [len(text) for text in texts]


def test_a_slow_tokenizer_is_an_error():
    class Slow:
        is_fast = False

    with pytest.raises(InputError, match="a fast one is needed"):
        list(encode(Slow(), ["a"], special=False))


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (0, 3, ((0, 2),)),
        (2, 4, ((1, 3),)),
        (3, 4, ((2, 3),)),
        (4, 9, ((4, 5),)),
        (0, 9, ((0, 3), (4, 5))),
        (5, 5, ()),
        (9, 12, ()),
    ],
)
def test_covering(start, stop, expected):
    # the fourth token holds no character, as one that a tokenizer adds
    assert covering([(0, 2), (2, 3), (3, 4), (0, 0), (4, 6)], start, stop) == expected
