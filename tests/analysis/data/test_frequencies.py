from pathlib import Path

import numpy as np
import pytest
from planted import CATEGORIES, dense_space, draw_sets, planted_prevalence, write_run

import sparcom.analysis.data.frequencies as module
from sparcom.analysis.data.frequencies import read_frequencies
from sparcom.analysis.data.load import load
from sparcom.analysis.options import AnalysisOptions
from sparcom.store import Run

CODES = np.arange(120) % 6
TOKENS = np.arange(120) % 17 + 8


def _run(folder: Path, retain: str = "counts") -> tuple[Run, np.ndarray]:
    mask = draw_sets(planted_prevalence(CATEGORIES, 600), CODES, np.random.default_rng(0))
    labels = [CATEGORIES[code] for code in CODES]
    return write_run(folder, mask, labels, dense_space(), tokens=TOKENS, retain=retain), mask


@pytest.mark.parametrize("chunk", [8192, 77])
def test_they_are_counts_over_tokens_in_chunks(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    run, mask = _run(tmp_path / "run")
    found = read_frequencies(run, load(run, AnalysisOptions()).labels, 0)
    assert list(found) == ["neurons"]  # a dense model has no experts
    parts = list(found["neurons"].chunks())
    assert max(part.shape[1] for part in parts) <= chunk
    np.testing.assert_allclose(np.concatenate(parts, 1), mask, rtol=1e-6)
    some = np.concatenate(list(found["neurons"].chunks(np.array([3, 9]))), 1)
    np.testing.assert_allclose(some, mask[[3, 9]], rtol=1e-6)


def test_a_large_corpus_is_sampled_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT_BYTES", 2 * 600 * 30)
    run, mask = _run(tmp_path / "run")
    found = read_frequencies(run, load(run, AnalysisOptions()).labels, 0)["neurons"]
    assert np.bincount(CODES[found.rows]).tolist() == [5] * 6
    np.testing.assert_allclose(np.concatenate(list(found.chunks()), 1), mask[found.rows], rtol=1e-6)


@pytest.mark.parametrize("retain", ["sets", "profile"])
def test_without_counts_there_are_none(tmp_path: Path, retain: str) -> None:
    run, _ = _run(tmp_path / "run", retain)
    assert read_frequencies(run, load(run, AnalysisOptions()).labels, 0) == {}
