"""Holes of templates reach data, and only data."""

import pytest

from sparcom.corpus.hexainst.row_template import MissingFieldError, check_template, fill
from sparcom.errors import InputError

ROW = {
    "q": "Why?",
    "answer": {"value": "so #### 42", "aliases": ["so", "thus"]},
    "n": 3,
    "whole": 3.0,
    "half": 0.5,
    "none": None,
    "label": "lost_card",
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("no hole", "no hole"),
        ("{q} {n}", "Why? 3"),
        ("{whole} {half}", "3 0.5"),
        ("{answer.aliases.1}", "thus"),
        ("{Question/q}", "Why?"),
        ("{none/q}", "Why?"),
        ("[{gone?}]", "[]"),
        ("{answer.aliases|lines}", "so\nthus"),
        ("{answer.aliases|text}", "so thus"),
        ("{answer.value|after ####}", "42"),
        ("{label|words}", "lost card"),
        ("  {q}\n", "Why?"),
    ],
)
def test_filling(template, text):
    check_template(template, "here")
    assert fill(template, ROW) == text


@pytest.mark.parametrize("template", ["{gone}", "{answer.gone}", "{q.__class__}", "{none}"])
def test_missing_fields(template):
    with pytest.raises(MissingFieldError):
        fill(template, ROW)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{q", "a brace is open"),
        ("{}", "open or empty"),
        ("{q|upper}", "filter 'upper' is unknown"),
    ],
)
def test_bad_templates(template, message):
    with pytest.raises(InputError, match=f"here: .*{message}"):
        check_template(template, "here")
