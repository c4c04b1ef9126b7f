"""The page: self-contained, escaped, and without a number that is none."""

import re
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from report_pages import (
    DENSE,
    MOE,
    SIX,
    assert_no_fetch,
    assert_numbers,
    page_of,
    stored,
    visible,
)

from sparcom.errors import InputError
from sparcom.report.page import write_report


@pytest.mark.parametrize("space", [DENSE, MOE], ids=["dense", "moe"])
def test_a_page_stands_alone_and_its_figures_are_written(tmp_path: Path, space) -> None:
    location = stored(tmp_path / "run", SIX * 6, space)
    html, page = page_of(location)
    assert_no_fetch(html, page)
    assert_numbers(html)
    text = visible(html)
    assert "tiny on 36 instructions" in text
    for category in SIX:
        assert category in text
    figures = tmp_path / "run/figures"
    names = {p.stem for p in figures.glob("*.png")}
    assert names == {p.stem for p in figures.glob("*.svg")}
    assert {"neurons-categories", "neurons-layers"} <= names
    assert any(name.startswith("experts") for name in names) == bool(space.experts)
    assert sum(tag == "svg" for tag, _ in page.elements) == len(names)
    assert {p.stem for p in figures.glob("*.pdf")} == names
    for pdf in figures.glob("*.pdf"):
        assert pdf.read_bytes().startswith(b"%PDF-")
    for png in figures.glob("*.png"):
        assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert png.stat().st_size > 2000
    for svg in figures.glob("*.svg"):
        assert ElementTree.parse(svg).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_a_page_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    location = stored(tmp_path / "run", SIX * 3)
    first, _ = page_of(location)
    svgs = {p.name: p.read_bytes() for p in (tmp_path / "run/figures").iterdir()}
    again, _ = page_of(location)
    assert again == first
    assert {p.name: p.read_bytes() for p in (tmp_path / "run/figures").iterdir()} == svgs


HOSTILE = (
    "<script>alert(1)</script>",
    "--><img src=x onerror=alert(1)>",
    '"\' onload="alert(1)',
    "</svg></style></table><b>",
    "{{ 7 * 7 }}{% raw %}",
    r"$\frac{1}$",
    "$x$",
    "_hidden",
    "\u202erofetirw",
    "zero\u200bwidth\u2060",
    "ab\u0000c\u0007",
    "very long " * 20,
    "",
)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_hostile_categories_are_text_and_nothing_else(tmp_path: Path) -> None:
    html, page = page_of(stored(tmp_path / "run", HOSTILE * 3))
    assert_no_fetch(html, page)
    assert_numbers(html)
    assert "b" not in page.tags
    assert "&lt;script&gt;alert(1)" in html
    assert "<script>alert(1)" not in html
    assert "49" not in re.findall(r"<td>([^<]*)</td>", html)
    assert "{{ 7 * 7 }}" in "".join(page.text)
    for invisible in "\u202e\u200b\u2060\0\a":
        assert invisible not in html
    assert r"\u202erofetirw" in html
    for svg in (tmp_path / "run/figures").glob("*.svg"):
        ElementTree.parse(svg)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_hostile_ids_paths_and_settings_are_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    ids = [f"{evil}{k}\u202e" for k in range(12)]
    location = stored(
        tmp_path / "run",
        SIX * 2,
        ids=ids,
        model={"path": f"/models/{evil}", "weights": evil},
        engine={"name": evil, "versions": {evil: evil}},
        created=evil,
    )
    html, page = page_of(location)
    assert_no_fetch(html, page)
    assert html.count(evil) == 0


@pytest.mark.parametrize(
    ("labels", "space"),
    [
        (["QA"] * 4, DENSE),
        (["QA", "SUM", "CODE"], MOE),
        (["QA"], MOE),
        (["QA", "QA", "SUM"], DENSE),
    ],
    ids=["one category", "one instruction each", "one instruction", "one category with a pair"],
)
def test_few_instructions_make_a_page_without_nonsense(tmp_path: Path, labels, space) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as a figure without room would give
        html, page = page_of(stored(tmp_path / "run", labels, space))
    assert_no_fetch(html, page)
    assert_numbers(html)
    assert "share more" not in visible(html) or "cannot be told from chance" in visible(html)


@pytest.mark.parametrize("retain", ["sets", "profile"])
def test_a_run_that_retains_less_has_a_page(tmp_path: Path, retain: str) -> None:
    html, page = page_of(stored(tmp_path / "run", SIX * 6, MOE, retain=retain))
    assert_no_fetch(html, page)
    assert_numbers(html)
    assert "tiny on 36 instructions" in visible(html)
    assert ("retains only its profile" in visible(html)) == (retain == "profile")
    assert "General, unique and specific neurons" in visible(html)


def test_one_category_without_sets_leaves_the_rest_of_the_page(tmp_path: Path) -> None:
    html, _ = page_of(stored(tmp_path / "run", SIX * 6, MOE, blank=("QA",)))
    assert_numbers(html)
    assert "6 of 36 sets are empty" in visible(html)
    assert "neurons: category QA: no set that is not empty" in visible(html)


@pytest.mark.parametrize("space", [DENSE, MOE], ids=["dense", "moe"])
def test_equal_counts_make_a_page_that_says_so(tmp_path: Path, space) -> None:
    html, _ = page_of(stored(tmp_path / "run", SIX * 4, space, equal=True))
    assert_numbers(html)
    assert "all pairs overlap alike; are all counts equal?" in visible(html)


def test_empty_sets_make_a_page_that_says_so(tmp_path: Path) -> None:
    html, _ = page_of(stored(tmp_path / "run", SIX * 2, blank=SIX))
    assert_numbers(html)
    assert "empty" in visible(html)


def test_a_run_that_is_not_complete_or_has_failures_says_so(tmp_path: Path) -> None:
    html, _ = page_of(stored(tmp_path / "run", SIX * 2, status="running", failed=3))
    assert "not complete" in visible(html)
    assert "3 instructions failed" in visible(html)


def test_without_a_run_there_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run here"):
        write_report(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
