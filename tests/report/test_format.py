import doctest

import pytest

from sparcom.analysis.stats.estimate import Estimate
from sparcom.report import format as formats
from sparcom.report.format import estimate_texts, expected, interval, number, p_value, with_interval


def test_the_examples_hold() -> None:
    found = doctest.testmod(formats, extraglobs={"Estimate": Estimate})
    assert (found.failed, found.attempted) == (0, 5)


@pytest.mark.parametrize(
    ("text", "is_"),
    [
        (number(None, none="undetermined"), "undetermined"),
        (number(-0.25, 2, signed=True), "-0.25"),
        (number(1234.5678, 1), "1234.6"),
        (interval(None, 0.5), "-"),
        (interval(-0.1, 0.25, 1, signed=True), "-0.1 to +0.2"),
        (with_interval(Estimate(None)), "undetermined"),
        (with_interval(Estimate(0.5)), "0.500"),
        (p_value(None), "-"),
        (p_value(0.000123), "0.00012"),
        (expected(0.0), "under 0.01"),
        (expected(9.96), "10"),
        (expected(10.0), "10"),
    ],
)
def test_numbers_are_written_one_way(text: str, is_: str) -> None:
    assert text == is_


def test_an_estimate_is_five_texts() -> None:
    whole = Estimate(0.5, 0.25, 0.75, 0.125, 0.0, 0.2, 0.01)
    assert estimate_texts(whole) == ("0.500", "0.250 to 0.750", "0.125", "0.000 to 0.200", "0.01")
    assert estimate_texts(Estimate(None)) == ("undetermined", "-", "-", "-", "-")
    assert estimate_texts(Estimate(None), none="-")[0] == "-"
