"""The examples of README, docs and notebooks, taken out of their pages."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(path: Path, *languages: str) -> Iterator[str]:
    """The code of a page's fences in these languages, without their indentation."""
    for indent, language, code in FENCE.findall(path.read_text("utf-8")):
        if language in languages:
            yield re.sub(rf"^{indent}", "", code, flags=re.MULTILINE)


def cells(path: Path) -> Iterator[str]:
    """The code of a notebook's cells."""
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            yield "".join(cell["source"])


def python_of(path: Path) -> Iterator[str]:
    if path.suffix == ".ipynb":
        yield from cells(path)
        return
    for code in blocks(path, "python", "pycon"):
        if code.lstrip().startswith(">>>"):
            lines = [line[4:] for line in code.splitlines() if line.startswith((">>>", "..."))]
            code = "\n".join(lines)
        yield code


def commands(path: Path) -> Iterator[list[str]]:
    """Words of each `sparcom ...` command of a page, without comments."""
    for code in blocks(path, "sh"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "sparcom" in words[:1] or (words[:1] == ["nsys"] and "sparcom" in words):
                yield words[words.index("sparcom") + 1 :]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()
