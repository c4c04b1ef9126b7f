import doctest
import importlib
import pkgutil
from pathlib import Path

import numpy as np
import pytest
from planted import (
    CATEGORIES,
    dense_space,
    draw_sets,
    mixed_space,
    planted_prevalence,
    write_run,
)

import sparcom.analysis
from sparcom.analysis.analyse import analyse
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.tuning.compare import compare
from sparcom.analysis.tuning.trajectory import trajectory

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "analysis.md"
MODULES = [m.name for m in pkgutil.iter_modules(sparcom.analysis.__path__)]
NEED_A_RUN = {"analyse", "compare", "conditional", "trajectory"}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs that the page speaks of: a base, the same in fp32, and a tuned one."""
    rng = np.random.default_rng(0)
    codes = np.arange(240) % 6
    labels = [CATEGORIES[code] for code in codes]
    q = planted_prevalence(CATEGORIES, 600)
    q[q == 0.5] = 0.9
    base = draw_sets(q, codes, rng)
    noise = np.where(codes == 4, 0.05, 0.005)[:, None]
    for name, flip in (("base", 0), ("base-fp32", 0.005), ("chat", noise)):
        mask = base ^ (rng.random(base.shape) < flip)
        write_run(tmp_path / "runs" / name, mask, labels, dense_space(), retain="counts")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("runs")
def test_the_page_runs() -> None:
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted > 15
    assert result.failed == 0


@pytest.mark.parametrize("name", [name for name in MODULES if name not in NEED_A_RUN])
def test_docstring_examples_hold(name: str) -> None:
    module = importlib.import_module(f"sparcom.analysis.{name}")
    assert doctest.testmod(module).failed == 0


def test_the_page_names_every_table(tmp_path: Path) -> None:
    text, rng = PAGE.read_text(), np.random.default_rng(0)
    labels, space = ["QA", "SUM"] * 10, mixed_space()
    runs = []
    for name in ("a", "b", "c"):
        neurons, experts = (rng.random((20, n)) < 0.3 for n in (space.neurons, space.experts))
        runs.append(write_run(tmp_path / name, neurons, labels, space, experts=experts,
                              retain="counts"))  # fmt: skip
    few = AnalysisOptions(permutations=9, bootstraps=9, small_draws=9)
    analyse(runs[-1], few)
    compare(runs[0], runs[-1], few)
    trajectory(runs, few)
    written = {path.stem for path in (tmp_path / "c" / "analysis").iterdir()}
    assert {"conditional_frequency", "source_matrix", "trajectory_warnings"} <= written
    for name in written:
        for family in ("_neurons", "_experts"):
            name = f"{name.removesuffix(family)}_*" if name.endswith(family) else name
        assert f"`{name}`" in text, name


def test_the_page_names_the_options() -> None:
    text = PAGE.read_text()
    for name in ("alpha", "high", "low", "pair_limit", "pair_sample", "small_draws", "seed"):
        assert f"`{name}`" in text, name
