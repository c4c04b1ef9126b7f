"""A real browser for the tests of the page: Debian's chromium, driven by playwright.

Every page that is opened is watched: what it logs, what fails in it, and what it asks for.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NEEDED = "SPARCOM_NEEDS_BROWSER"
"""Set by `make test-all`: a browser that is not there then is a failure, not a skip."""


def chromium_path() -> str:
    """Where chromium is; skips the test if there is none, or fails it if one is needed."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        reason = "no chromium here: apt-get install chromium"
        if os.environ.get(NEEDED):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class Watched:
    """What a page did that it must not do: errors, log lines, requests, dialogs."""

    def __init__(self, page: Any, allowed: str) -> None:
        self.seen: list[str] = []
        page.on("console", lambda m: self.seen.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda error: self.seen.append(f"error: {error}"))
        page.on("dialog", lambda d: (self.seen.append(f"dialog: {d.message}"), d.dismiss()))
        page.on("request", lambda r: self._request(r.url, allowed))

    def _request(self, url: str, allowed: str) -> None:
        if not url.startswith((allowed, "data:", "blob:")):
            self.seen.append(f"request: {url}")


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    path = chromium_path()
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def opened(
    chromium: Any, url: str, view: str = "overview", *, allowed: str | None = None, **options: Any
) -> Iterator[Any]:
    """A page of the browser with one view drawn; fails if anything that it does is `Watched`.

    options: of playwright's new_context, such as viewport or color_scheme.
    """
    options = {"viewport": {"width": 1280, "height": 900}, **options}
    context = chromium.new_context(**options, reduced_motion="reduce")
    context.set_default_timeout(60_000)
    page = context.new_page()
    watched = Watched(page, allowed or url)
    try:
        page.goto(f"{url}#{view}")
        wait_for(page, view)
        yield page
        assert watched.seen == []
    finally:
        context.close()


def wait_for(page: Any, view: str) -> None:
    """Until the view is shown and drawn."""
    ready = {
        "overview": "#overview .finding .plot svg",
        "overlap": "#overlap .plot svg",
        "depth": "#depth .plot svg",
        "units": "#units .ag-row",
        "instructions": "#instructions .ag-row",
        "statistics": "#statistics h2",
    }[view]
    page.locator(ready).first.wait_for(state="visible")


def go(page: Any, view: str) -> None:
    """Choose a view by its link."""
    page.locator(f"nav a[href='#{view}']").click()
    wait_for(page, view)


def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until something holds: the grid draws, and tells its listeners, a moment later."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it does not come to hold"
        time.sleep(0.05)


def grid_cells(page: Any, view: str, column: int) -> list[str]:
    """The texts of a column of the grid, of the rows that are drawn, from the top."""
    rows = page.locator(f"{view} .ag-row")
    found = []
    for at in range(rows.count()):
        row = rows.nth(at)
        cell = row.locator(f"[aria-colindex='{column}']")
        found.append((int(row.get_attribute("row-index")), cell.inner_text()))
    return [text for _, text in sorted(found)]


def download(page: Any, button: Any) -> bytes:
    """The file that a button saves."""
    with page.expect_download() as info:
        button.click()
    return info.value.path().read_bytes()
