"""Runs written as the product writes them, and their pages as a browser would see them."""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from store_helpers import STAMPS, manifest_of, store_corpus, store_part

from sparcom.analysis.options import AnalysisOptions
from sparcom.components import ComponentSpace, Site
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.corpus.schema import Instruction
from sparcom.counting.counted import Counted
from sparcom.engines.count_part import Failure
from sparcom.report import page as page_module
from sparcom.report.page import SCRIPTS, app_script, write_report
from sparcom.selection.rules import Selection, identify
from sparcom.store import CellRule, RunStore, length_edges, part_profile

DENSE = ComponentSpace(tuple(Site("dense", j, 40, "silu") for j in range(4)))
MOE = ComponentSpace(
    (
        Site("dense", 0, 40, "silu"),
        Site("routed", 1, 8, "silu", experts=6, top_k=2),
        Site("shared", 1, 20, "silu"),
    )
)
POLICY = "Content-Security-Policy"
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
    clusters: Sequence[str] = ("",),
    retain: str = "counts",
    failed: int = 0,
    text: str = "x",
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
    store = RunStore(folder, STAMPS)
    records = [
        Instruction(
            i,
            c,
            source=sources[k % len(sources)],
            instruction=text,
            cluster=clusters[k % len(clusters)],
        )
        for k, (i, c) in enumerate(zip(ids, labels, strict=True))
    ]
    prompts = [Prompt(i, tuple(range(t)), ((0, t),)) for i, t in zip(ids, tokens, strict=True)]
    store_corpus(store, records, prompts, len(prompts))
    failures = [Failure(f"gone{k}", "why") for k in range(failed)]
    sets = identify(counted, space, Selection("top:0.1"))
    rule = CellRule(length_edges(np.bincount(tokens)))
    keys = rule.keys(store.corpus.table(["id", "category", "source", "origin", "cluster"]), tokens)
    kept = {"counts": (counted, sets), "sets": (None, sets), "profile": (None, None)}[retain]
    store_part(store, 0, *kept, failures, part_profile(counted, sets, keys))
    engine = {"name": "transformers", "device": "cpu", "dtype": "float32", "threads": 1}
    facts = {
        "cells": rule.to_json(),
        "config": {"corpus": "c.jsonl", "retain": retain},
        "selection": {"rule": "top:0.1"},
        "engine": {**engine, "batch_tokens": 64, "versions": {"torch": "2"}},
        "tokens": int(tokens.sum()),
        "failed": failed,
        "seconds": 1.0,
    }
    store.write_manifest(manifest_of(space, len(ids), **{**facts, **manifest}))
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
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            attributes, text = self.scripts.pop()
            self.scripts.append((attributes, text + data))
        else:
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
    """Nothing that a browser would load or send, and no script but the page's own, by its hash."""
    assert not page.tags & {"link", "iframe", "object", "embed", "img", "form", "base",
                            "audio", "video", "foreignobject", "a"}  # fmt: skip
    for tag, attributes in page.elements:
        assert tag != "script" or "src" not in attributes
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "data", "action", "srcset", "poster"):
                allowed = ("#", "data:image/png;base64,") if tag == "image" else "#"
                assert (value or "").startswith(allowed), (tag, name, value)
            for url in re.findall(r"url\(\s*['\"]?([^)]*)", value or ""):
                assert url.startswith("#"), (tag, name, value)
    styles = "".join(re.findall(r"<style.*?</style>", html, re.DOTALL))
    assert "@import" not in styles
    assert "url(" not in re.sub(r"url\(#[\w-]*\)", "", styles)
    policies = [a["content"] for t, a in page.elements if a.get("http-equiv") == POLICY]
    assert len(policies) == 1
    policy = dict(part.strip().split(" ", 1) for part in (policies[0] or "").split(";"))
    assert policy["default-src"] == policy["connect-src"] == "'none'"
    run = [text for attributes, text in page.scripts if "type" not in attributes]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run]
    assert policy["script-src"].split() == [f"'sha256-{digest}'" for digest in digests]
    assert run == [*(read_asset(name) for name in SCRIPTS), app_script()]


def read_asset(name: str) -> str:
    return (
        Path(page_module.__file__).with_name("page.html").parent.joinpath(name).read_text("utf-8")
    )


def block_of(page: Page, name: str, run: int = 0) -> dict[str, Any]:
    """A block of the page, unpacked."""
    ids = {attributes.get("id"): text for attributes, text in page.scripts}
    return json.loads(gzip.decompress(base64.b64decode(ids[f"data-{run}-{name}"])))


def visible(html: str) -> str:
    """All that is to be read, the text of figures (which they keep as comments) included."""
    page = Page(html)
    styles = re.findall(r"<style[^>]*>(.*?)</style>", html, re.DOTALL)
    return "\n".join(t for t in (*page.text, *page.comments) if t not in styles)


def assert_numbers(html: str) -> None:
    text = visible(html)
    found = re.search(r"(?<![A-Za-z])(nan|NaN|inf|None|array)(?![A-Za-z])", text)
    assert not found, text[max(0, found.start() - 80) : found.end() + 80]


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
