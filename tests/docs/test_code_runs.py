"""The notebooks run, and so does the Python of the tutorial and the how-to guides."""

import importlib.util
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from doc_examples import NOTEBOOKS, ROOT, blocks, cells
from planted import dense_space, write_run

import sparcom

PAGES = (
    "README.md",
    "docs/tutorial/in-python.md",
    "docs/howto/ablate.md",
    "docs/howto/attribute.md",
    "docs/howto/read-a-run.md",
    "docs/howto/use-neurons.md",
)

pytestmark = pytest.mark.slow  # each counts on the default model, most of them through Ray


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an analysed runs/first, which the pages speak of."""
    matplotlib.use("agg")
    folder = tmp_path_factory.mktemp("docs")
    first = folder / "runs" / "first"
    sparcom.count(sparcom.RunConfig(limit=10, max_tokens=60, out=str(first)))
    # A generous alpha: the pages need specific neurons of MATH, and ten instructions have few.
    few = sparcom.AnalysisOptions(alpha=0.5, permutations=50, bootstraps=50, small_draws=20)
    sparcom.analyse(sparcom.Run(first), few)
    lists = folder / "neurons.json"
    sparcom.export(sparcom.Run(first), "neurons-json", lists, table="enriched_neurons")
    return folder


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for number, code in enumerate(cells(path)):
        exec(compile(code, f"{path.name}, code cell {number}", "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_page(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, object] = {"__name__": "__main__"}
    for number, code in enumerate(blocks(ROOT / page, "python")):
        missing = [m for m in ("duckdb", "polars", "lm_eval") if m in code and not _is_here(m)]
        if not missing:
            exec(compile(code, f"{page}, block {number}", "exec"), names)


def test_the_comparison_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng, space = np.random.default_rng(0), dense_space()
    for name in ("base", "tuned"):
        write_run(tmp_path / "runs" / name, rng.random((24, space.neurons)) < 0.3,
                  ["QA", "SUM"] * 12, space)  # fmt: skip
    for code in blocks(ROOT / "docs" / "howto" / "compare.md", "python"):
        exec(compile(code, "compare.md", "exec"), {"__name__": "__main__"})


def _is_here(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
