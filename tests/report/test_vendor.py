"""The libraries of the page are the files that vendor/README.md names, with their licences."""

import hashlib
import re
from pathlib import Path

from sparcom.report import page
from sparcom.report.page import APP, SCRIPTS

REPORT = Path(page.__file__).parent
ROW = re.compile(r"^\| `([\w.-]+)` \| `([\w-]+)`, `dist/` \| ([\d.]+) \| [\w.-]+ \| `(\w{64})` \|$")


PARSERS = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(")


def test_vendored_files_are_those_of_their_packages() -> None:
    lines = (REPORT / "vendor/README.md").read_text().splitlines()
    rows = [match.groups() for line in lines if (match := ROW.match(line))]
    assert {f"vendor/{name}" for name, *_ in rows} == set(SCRIPTS)
    assert {path.name for path in (REPORT / "vendor").glob("*.js")} == {name for name, *_ in rows}
    for name, package, version, digest in rows:
        content = (REPORT / "vendor" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert version.encode() in content
        licence = REPORT / "vendor" / f"{package}.LICENSE.txt"
        assert "icense" in licence.read_text() or "Permission is hereby" in licence.read_text()


def test_every_script_of_the_page_runs() -> None:
    assert {path.stem for path in (REPORT / "app").glob("*.js")} == set(APP)
    for name in (*SCRIPTS, *(f"app/{name}.js" for name in APP)):
        assert "</script" not in (REPORT / name).read_text().lower()


def test_the_scripts_set_no_markup() -> None:
    """Texts of a run become text nodes: nothing in app/ parses HTML or code."""
    for name in APP:
        code = (REPORT / f"app/{name}.js").read_text()
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
        ):
            assert word not in code, (name, word)
