"""Nothing invisible gets through, everything visible does."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparcom.formatting import printable, render_table, safe_lines, shorten


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\nb", "a\\nb"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202ex\u200b", "\\u202ex\\u200b"),
        ("\ufeff\u2028", "\\ufeff\\u2028"),
        ("naïve שלום 你好 <b>", "naïve שלום 你好 <b>"),
        ("\ud800", "\\ud800"),
    ],
)
def test_examples(text, shown):
    assert printable(text) == shown


@given(st.text())
def test_no_hidden_character_is_left(text):
    assert all(unicodedata.category(c)[0] != "C" for c in printable(text))
    visible = [c for c in text if unicodedata.category(c)[0] != "C"]
    assert len(printable(text)) >= len(visible)


def test_what_is_kept_and_what_is_cut():
    assert printable("a\nb\t", keep="\n") == "a\nb\\t"
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abc..."


def test_table_columns_line_up():
    assert render_table(["name", "n"], [["a", 12], ["longer", 3]]) == (
        "name     n\na       12\nlonger   3"
    )


def test_lines_of_a_message():
    assert safe_lines("a\x1b[31m\nb" + "x" * 999, 10) == "a\\x1b[31m\nbxxxxxx..."
    assert shorten("\u202e" * 3, 8) == "\\u202..."
