"""The site builds with --strict, fetches nothing, and its generated pages follow the code."""

import importlib
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from sparcom import RunConfig

ROOT = Path(__file__).parents[2]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that makes pages of the reference."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_site"))
    return importlib.import_module("reference_pages")


def test_the_config_page_has_every_key(made: ModuleType) -> None:
    keys = re.findall(r"^\| `(\w+)` \|", made.config_page(), re.MULTILINE)
    assert keys == [f.name for f in fields(RunConfig)]


def test_the_command_page_has_every_command(made: ModuleType) -> None:
    page = made.cli_page()
    shown = subprocess.run(
        [sys.executable, "-m", "sparcom.cli", "--help"], capture_output=True, text=True, check=True
    ).stdout
    names = re.findall(r"^    (\w+) ", shown, re.MULTILINE)
    assert {"run", "count", "identify", "doctor", "corpus"} <= set(names)
    for name in names:
        assert re.search(rf"^## sparcom {name}\b", page, re.MULTILINE), name
    for option in ("--config", "--rule", "--near", "--mirror", "--draws"):
        assert f"`{option}`" in page


def test_docstrings_become_markdown(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("griffe", reason="mkdocstrings is not installed: make docs")
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_site"))
    text = (
        "Adds.\n\nleft: one number. right, other: two\n    numbers.\nReturns their sum.\n\n"
        ">>> add(1, 2)\n3"
    )
    assert importlib.import_module("docstrings").to_markdown(text) == (
        "Adds.\n\n- **left**: one number.\n- **right, other**: two\n  numbers.\n\n"
        "Returns their sum.\n\n```pycon\n>>> add(1, 2)\n3\n```"
    )


def test_the_site_builds_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: make docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page.read_text("utf-8"))
        fetched = [tag for tag in tags if re.search(r'(?:src|href)="(?:https?:)?//', tag)]
        assert fetched == [], page.name
    api = (tmp_path / "reference" / "api.html").read_text("utf-8")
    for name in ("Model", "Counts", "select", "Run", "compare"):
        assert re.search(rf'id="sparcom\.[\w.]*\b{name}"', api), name
