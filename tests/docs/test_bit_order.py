"""The lines of the guide that read packed sets, with each library, on sets that are known."""

from pathlib import Path

import numpy as np
import pytest
from doc_examples import ROOT, blocks
from planted import dense_space, write_run

PAGE = ROOT / "docs/howto/read-a-run.md"
N = 24


@pytest.fixture
def members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """[instructions, neurons] of the run in runs/first."""
    space = dense_space()
    known: np.ndarray = np.random.default_rng(0).random((N, space.neurons)) < 0.4
    write_run(tmp_path / "runs/first", known, ["QA", "SUM"] * (N // 2), space, part_size=N)
    monkeypatch.chdir(tmp_path)
    return known


def run_block(module: str, text: str) -> dict[str, object]:
    """The names that the block of the page with a text leaves, which imports a module."""
    (code,) = (c for c in blocks(PAGE, "python") if f"import {module}" in c and text in c)
    names: dict[str, object] = {}
    exec(compile(code, f"{PAGE.name}, {module}", "exec"), names)
    return names


@pytest.mark.parametrize("module", ["duckdb", "polars"])
def test_who_holds_a_neuron(members: np.ndarray, module: str) -> None:
    pytest.importorskip(module, reason="not installed; the page says how to use it all the same")
    found = [
        row[0] if isinstance(row, tuple) else row for row in run_block(module, "held_by")["held_by"]
    ]
    assert found == [f"{('QA', 'SUM')[k % 2]}-{k:04d}" for k in np.flatnonzero(members[:, 3])]


def test_all_members_with_numpy(members: np.ndarray) -> None:
    found = run_block("numpy", "unpackbits")["members"]
    np.testing.assert_array_equal(found[:, : members.shape[1]], members)
    assert not found[:, members.shape[1] :].any()
