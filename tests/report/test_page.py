"""The page: self-contained, escaped, and without a number that is none."""

import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from store_helpers import store_corpus, store_part

from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.tuning.compare import compare
from sparcom.analysis.tuning.noise_floor import noise_floor
from sparcom.analysis.tuning.trajectory import trajectory
from sparcom.components import ComponentSpace, Site
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.corpus.schema import Instruction
from sparcom.counting.counted import Counted
from sparcom.engines.count_part import Failure
from sparcom.errors import InputError
from sparcom.report.page import write_report
from sparcom.selection.rules import Selection, identify
from sparcom.store import CellRule, Run, RunStore, length_edges, part_profile

DENSE = ComponentSpace(tuple(Site("dense", j, 40, "silu") for j in range(4)))
MOE = ComponentSpace(
    (
        Site("dense", 0, 40, "silu"),
        Site("routed", 1, 8, "silu", experts=6, top_k=2),
        Site("shared", 1, 20, "silu"),
    )
)
VOID = {"meta", "br", "img", "input", "link", "hr"}
FEW = AnalysisOptions(permutations=99, bootstraps=99, small_draws=20)
SIX = ("CLS", "CODE", "QA", "GEN", "MATH", "SUM")


def stored(
    folder: Path,
    labels: Sequence[str],
    space: ComponentSpace = DENSE,
    *,
    ids: Sequence[str] | None = None,
    blank: Sequence[str] = (),
    equal: bool = False,
    sources: Sequence[str] = ("human",),
    retain: str = "counts",
    failed: int = 0,
    **manifest: object,
) -> str:
    """A finished run whose instructions have these categories; returns its location.

    blank: categories in which nothing fires; equal: every neuron and expert fires as often.
    """
    rng = np.random.default_rng(0)
    ids = tuple(ids or (f"i{k}" for k in range(len(labels))))
    tokens = rng.integers(5, 30, len(ids))
    lean = np.array([hash_of(name) for name in labels])[:, None] + np.arange(space.neurons)
    odds = 0.2 + 0.6 * (lean % 7 == 0)  # neurons that a category likes
    fires = np.array([name not in blank for name in labels])[:, None]
    counts = (rng.binomial(tokens[:, None], odds) * fires).astype(np.int32)
    routed = rng.integers(0, tokens[:, None] + 1, (len(ids), space.experts)) * fires
    counts[:, space.neuron_experts >= 0] = np.minimum(
        counts[:, space.neuron_experts >= 0],
        routed[:, space.neuron_experts[space.neuron_experts >= 0]],
    )
    if equal:
        counts[:], routed[:] = 3, 3
    counted = Counted(ids, tokens, counts, routed.astype(np.int32))
    store = RunStore(folder)
    records = [
        Instruction(i, c, source=sources[k % len(sources)], instruction="x")
        for k, (i, c) in enumerate(zip(ids, labels, strict=True))
    ]
    prompts = [Prompt(i, tuple(range(t)), ((0, t),)) for i, t in zip(ids, tokens, strict=True)]
    store_corpus(store, records, prompts, len(prompts))
    failures = [Failure(f"gone{k}", "why") for k in range(failed)]
    sets = identify(counted, space, Selection("top:0.1"))
    rule = CellRule(length_edges(np.bincount(tokens)))
    keys = rule.keys(store.corpus.table(["id", "category", "source"]), tokens)
    kept = {"counts": (counted, sets), "sets": (None, sets), "profile": (None, None)}[retain]
    store_part(store, 0, *kept, failures, part_profile(counted, sets, keys))
    store.write_manifest(
        {
            "status": "complete",
            "cells": rule.to_json(),
            "config": {
                "corpus": "c.jsonl",
                "template": "model",
                "scope": "instruction",
                "signal": "gate",
                "threshold": 0.0,
                "retain": retain,
            },
            "model": {"path": "/models/tiny", "weights": "ab" * 32},
            "corpus": {"instructions": len(ids), "hash": "cd" * 32},
            "sites": space.to_json(),
            "selection": {
                "rule": "top:0.1",
                "expert_rule": "top:0.1",
                "ties": "inclusive",
                "pool": False,
            },
            "engine": {
                "name": "transformers",
                "device": "cpu",
                "dtype": "float32",
                "threads": 1,
                "batch_tokens": 64,
                "versions": {"torch": "2"},
            },
            "tokens": int(tokens.sum()),
            "failed": failed,
            "seconds": 1.0,
            "created": "2026-01-01T00:00:00Z",
            **manifest,
        }
    )
    return str(folder)


def hash_of(text: str) -> int:
    return sum(text.encode())


class Page(HTMLParser):
    """What a browser would see of a page: its elements, and the text in them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.comments: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}


def page_of(location: str) -> tuple[str, Page]:
    html = Path(write_report(location, FEW)).read_text("utf-8")
    page = Page(html)
    assert page.open == []
    return html, page


def assert_no_fetch(html: str, page: Page) -> None:
    """Nothing that a browser would load, run or send."""
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "img", "form", "base",
                            "audio", "video", "foreignobject", "a"}  # fmt: skip
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "data", "action", "srcset", "poster"):
                allowed = ("#", "data:image/png;base64,") if tag == "image" else "#"
                assert (value or "").startswith(allowed), (tag, name, value)
            for url in re.findall(r"url\(\s*['\"]?([^)]*)", value or ""):
                assert url.startswith("#"), (tag, name, value)
    styles = "".join(re.findall(r"<style.*?</style>", html, re.DOTALL))
    assert "@import" not in styles
    assert "url(http" not in styles


def shown(html: str) -> str:
    """All that is to be read, the text of figures (which they keep as comments) included."""
    page = Page(html)
    styles = re.findall(r"<style[^>]*>(.*?)</style>", html, re.DOTALL)
    return "\n".join(t for t in (*page.text, *page.comments) if t not in styles)


def assert_numbers(html: str) -> None:
    text = shown(html)
    found = re.search(r"(?<![A-Za-z])(nan|NaN|inf|None|array)(?![A-Za-z])", text)
    assert not found, text[max(0, found.start() - 80) : found.end() + 80]


@pytest.mark.parametrize("space", [DENSE, MOE], ids=["dense", "moe"])
def test_a_page_stands_alone_and_its_figures_are_written(tmp_path: Path, space) -> None:
    location = stored(tmp_path / "run", SIX * 6, space)
    html, page = page_of(location)
    assert_no_fetch(html, page)
    assert_numbers(html)
    text = shown(html)
    assert "tiny on 36 instructions" in text
    for category in SIX:
        assert category in text
    figures = tmp_path / "run/figures"
    names = {p.stem for p in figures.glob("*.png")}
    assert names == {p.stem for p in figures.glob("*.svg")}
    assert {"neurons-categories", "neurons-layers"} <= names
    assert any(name.startswith("experts") for name in names) == bool(space.experts)
    assert html.count("<svg") == len(names)
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
    assert "<script" not in html
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
    assert "<script" not in html


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
    assert "share more" not in shown(html) or "cannot be told from chance" in shown(html)


@pytest.mark.parametrize("retain", ["sets", "profile"])
def test_a_run_that_retains_less_has_a_page(tmp_path: Path, retain: str) -> None:
    html, page = page_of(stored(tmp_path / "run", SIX * 6, MOE, retain=retain))
    assert_no_fetch(html, page)
    assert_numbers(html)
    assert "tiny on 36 instructions" in shown(html)
    assert ("retains only its profile" in shown(html)) == (retain == "profile")
    assert "General, unique and specific neurons" in shown(html)


def test_one_category_without_sets_leaves_the_rest_of_the_page(tmp_path: Path) -> None:
    html, _ = page_of(stored(tmp_path / "run", SIX * 6, MOE, blank=("QA",)))
    assert_numbers(html)
    assert "6 of 36 sets are empty" in shown(html)
    assert "neurons: category QA: no set that is not empty" in shown(html)


@pytest.mark.parametrize("space", [DENSE, MOE], ids=["dense", "moe"])
def test_equal_counts_make_a_page_that_says_so(tmp_path: Path, space) -> None:
    html, _ = page_of(stored(tmp_path / "run", SIX * 4, space, equal=True))
    assert_numbers(html)
    assert "all pairs overlap alike; are all counts equal?" in shown(html)


def rows_of(html: str, head: str) -> list[list[str]]:
    """The cells of the table whose first column has this head."""
    for table in re.findall(r"<table>(.*?)</table>", html, re.DOTALL):
        rows = [
            re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)
            for row in re.findall(r"<tr>(.*?)</tr>", table)
        ]
        if rows[0][0] == head:
            return rows
    raise AssertionError(f"no table {head}")


def test_the_page_holds_what_a_sceptic_asks_for(tmp_path: Path) -> None:
    location = stored(tmp_path / "run", SIX * 40, sources=("human",) * 6 + ("ai",) * 6)
    html, _ = page_of(location)
    text = shown(html)
    sentence = re.search(r"Neuron \((\d), (\d+)\) is (\w+)-specific at q < 0.05", text)
    layer, unit, category = sentence.groups()
    table = Run(location).store.read_table("specific_neurons").to_pylist()
    named = next(r for r in table if (r["layer"], r["unit"]) == (int(layer), int(unit)))
    assert named["category"] == category
    assert f"{named['prevalence']:.0%} ({named['prevalence_low']:.0%} to" in text
    figures = {row[0]: row[1:] for row in rows_of(html, "figure")}
    for name in ("same minus different type", "the same, origins as wholes",
                 "the same within like length", "share of it that length explains",
                 "share of it that length and source explain",
                 "same minus different type, ai against human",
                 "probability that a same-type pair overlaps more",
                 "distance between categories&#39; layer shares",
                 "stability of the pattern over depth",
                 "split-half reliability of the heatmap"):  # fmt: skip
        value, interval, chance = figures[name][:3]
        assert re.fullmatch(r"-?\d\.\d+", value), name
        assert re.fullmatch(r"-?\d\.\d+ to -?\d\.\d+", interval), name
        assert re.fullmatch(r"-?\d\.\d+", chance), name
    sizes = rows_of(html, "ranked together")
    assert sizes[1][:3] == ["neurons, dense", "160", "16 (10.00%)"]
    reliability = rows_of(html, "category")
    assert reliability[0][1] == "instructions"
    assert {"neurons-sources", "neurons-effect-by-layer"} <= {
        p.stem for p in (tmp_path / "run/figures").glob("*.svg")
    }


def test_routed_neurons_are_seen_given_their_expert(tmp_path: Path) -> None:
    location = stored(tmp_path / "run", SIX * 10, MOE)
    html, _ = page_of(location)
    rows = rows_of(html, "routed ISNs of")
    assert [row[0] for row in rows[1:]] == list(SIX)
    counts = Run(location).store.read_table("component_counts").to_pylist()
    stored_rows = [r for r in counts if r["figure"] == "conditional frequency of ISNs"]
    for row, figure in zip(rows[1:], stored_rows, strict=True):
        assert row[1] == f"{figure['value']:.3f}"
        assert row[2] == f"{figure['low']:.3f} to {figure['high']:.3f}"


def test_a_comparison_and_a_trajectory_are_on_the_page_with_their_noise_floor(
    tmp_path: Path,
) -> None:
    runs = [Run(stored(tmp_path / name, SIX * 6, MOE)) for name in ("base", "fp32", "tuned")]
    last = runs[2]
    last.manifest["status"] = "running"
    bits = last.sets.neurons
    bits[:, ::2] = 0
    noise = noise_floor(*runs[:2])
    compare(runs[0], last, FEW, noise_floor=noise)
    trajectory(runs, FEW, noise_floor=noise)
    html, page = page_of(str(tmp_path / "tuned"))
    assert_no_fetch(html, page)
    assert_numbers(html)
    text = shown(html)
    assert "Tuning moved the ISNs of CLS, CODE, QA, GEN, MATH, SUM beyond the noise" in text
    assert "Tuning moved the ISEs of no category beyond the noise floor." in text
    assert "Note: tuned: the run is not complete; finish it with --resume." in text
    assert rows_of(html, "ISNs")[1][-2] == "1.000"
    assert "Along training" in text
    names = {p.stem for p in (tmp_path / "tuned/figures").glob("*.svg")}
    assert {"neurons-trajectory", "experts-trajectory", "neurons-change-by-layer"} <= names


def test_empty_sets_make_a_page_that_says_so(tmp_path: Path) -> None:
    html, _ = page_of(stored(tmp_path / "run", SIX * 2, blank=SIX))
    assert_numbers(html)
    assert "empty" in shown(html)


def test_a_run_that_is_not_complete_or_has_failures_says_so(tmp_path: Path) -> None:
    html, _ = page_of(stored(tmp_path / "run", SIX * 2, status="running", failed=3))
    assert "not complete" in shown(html)
    assert "3 instructions failed" in shown(html)


def test_without_a_run_there_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run here"):
        write_report(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
