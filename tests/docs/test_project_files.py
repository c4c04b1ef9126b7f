"""The files at the root say the same as the code and each other."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def test_one_version() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == PROJECT["version"]
    assert f"\n## {PROJECT['version']}\n" in read("CHANGELOG.md")


def test_one_licence() -> None:
    assert yaml.safe_load(read("CITATION.cff"))["license"] == PROJECT["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0" in read("LICENSE")


def test_the_citation_names_paper_and_software() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors", "type"} <= citation.keys()
    assert citation["preferred-citation"]["url"].endswith("2505.21191")
    assert len(citation["preferred-citation"]["authors"]) == 11


def test_make_targets_that_are_named_exist() -> None:
    named = {
        target
        for page in ("README.md", "CONTRIBUTING.md", ".github/workflows/ci.yml", ".ci/run")
        for target in re.findall(r"^\s*(?:- run: )?make ([a-z-]+)", read(page), re.MULTILINE)
    }
    assert {"run", "test", "docs", "lint"} <= named <= TARGETS


def test_the_workflow_lints_tests_documents_and_builds_wheels() -> None:
    workflow = yaml.safe_load(read(".github/workflows/ci.yml"))
    assert set(workflow["jobs"]) == {"lint", "test", "docs", "wheels"}
    uses = [
        step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step
    ]
    assert any(use.startswith("pypa/cibuildwheel@") for use in uses)
    assert all("@" in use for use in uses)


def test_hooks_run_the_tools_of_make_lint() -> None:
    hooks = yaml.safe_load(read(".pre-commit-config.yaml"))
    entries = [
        hook["entry"] for repo in hooks["repos"] for hook in repo["hooks"] if "entry" in hook
    ]
    recipe = MAKEFILE[MAKEFILE.index("\nlint:") :].split("\n\n")[0]
    for tool in ("ruff check", "ruff format", "mypy"):
        assert f"$(BIN)/{tool}" in recipe
        assert any(entry.startswith(f".venv/bin/{tool}") for entry in entries)


def test_the_readme_is_short_and_starts_with_a_picture() -> None:
    lines = read("README.md").splitlines()
    assert len(lines) < 120
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", "\n".join(lines[:6]))
    assert pictures
    assert (ROOT / pictures[0]).is_file()
