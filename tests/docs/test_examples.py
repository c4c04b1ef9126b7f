"""Examples of README, docs and notebooks: what they import, what they call, what they configure."""

import ast
import io
import json
import re
import shlex
import tomllib
from contextlib import redirect_stderr
from dataclasses import fields
from pathlib import Path

import pytest
from doc_examples import NOTEBOOKS, PAGES, ROOT, blocks, commands, name_of, python_of

import sparcom
from sparcom import RunConfig
from sparcom.cli.main import _parser as cli_parser
from sparcom.corpus.hexainst.recipes import load_recipe
from sparcom.study.config import load_study


def test_examples_are_found() -> None:
    assert len(NOTEBOOKS) == 3
    assert sum(len(list(python_of(page))) for page in PAGES) > 15
    assert sum(len(list(commands(page))) for page in PAGES) > 30


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=name_of)
def test_examples_import_from_sparcom_alone(path: Path) -> None:
    for code in python_of(path):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Import):
                deep = [a.name for a in node.names if a.name.startswith("sparcom.")]
                assert not deep, f"import {deep[0]}: only `import sparcom` is public"
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sparcom"):
                assert node.module == "sparcom", f"from {node.module}: use `from sparcom`"
                assert {a.name for a in node.names} <= set(sparcom.__all__)
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "sparcom":
                assert node.attr in sparcom.__all__


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_known(page: Path) -> None:
    for words in commands(page):
        wrong = _complaint(words)
        assert not wrong, f"sparcom {shlex.join(words)}: {wrong}"


def _complaint(words: list[str]) -> str:
    """What the parser says against a command; "" if it takes it."""
    said = io.StringIO()
    with redirect_stderr(said):
        try:
            cli_parser().parse_args(words)
        except SystemExit as stop:
            return said.getvalue() if stop.code else ""
    return ""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_configs_are_known(page: Path, tmp_path: Path) -> None:
    for code in blocks(page, "toml"):
        if "[[source]]" in code:
            (tmp_path / "recipe.toml").write_text(code)
            load_recipe(tmp_path / "recipe.toml")
        elif "[[pair]]" in code:
            (tmp_path / "study.toml").write_text(code)
            load_study(tmp_path / "study.toml")
        else:
            assert tomllib.loads(code).keys() <= {f.name for f in fields(RunConfig)}


def test_the_api_page_has_every_public_name() -> None:
    page = (ROOT / "docs" / "reference" / "api.md").read_text()
    assert sorted(re.findall(r"^::: sparcom\.(\w+)$", page, re.MULTILINE)) == sparcom.__all__


def test_notebooks_store_no_output() -> None:
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                assert cell["outputs"] == [], path.name
                assert cell["execution_count"] is None, path.name
