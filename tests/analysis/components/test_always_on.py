from pathlib import Path

import numpy as np
import pytest
from planted import dense_space, mixed_space, write_run

from sparcom.analysis.components.always_on import always_on, category_frequencies
from sparcom.analysis.options import AnalysisOptions
from sparcom.errors import InputError

LABELS = ["QA", "SUM"] * 10


def _members(always: int, elsewhere: int) -> np.ndarray:
    """Neurons that always fire, then some that do for QA alone."""
    mask = np.zeros((20, 600), bool)
    mask[:, :always] = True
    mask[::2, always : always + elsewhere] = True
    return mask


def test_every_category_or_plain_text_says_what_is_always_on(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", _members(5, 7), LABELS, dense_space())
    frequency = category_frequencies(run, ("QA", "SUM"), "neurons")
    assert frequency[:, :12].tolist() == [[1] * 12, [1] * 5 + [0] * 7]
    found, where = always_on(run, frequency, "neurons", AnalysisOptions())
    assert (np.flatnonzero(found).tolist(), where) == ([0, 1, 2, 3, 4], "every category")
    plain = write_run(tmp_path / "plain", _members(9, 0), ["TEXT"] * 20, dense_space())
    options = AnalysisOptions(baseline=plain.store.location)
    found, where = always_on(run, frequency, "neurons", options)
    assert (np.flatnonzero(found).tolist(), where) == (list(range(9)), "plain text")


def test_a_baseline_of_another_model_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", _members(5, 7), LABELS, dense_space())
    space = mixed_space()
    other = write_run(
        tmp_path / "other", np.ones((20, space.neurons), bool), LABELS, space,
        experts=np.ones((20, space.experts), bool),
    )  # fmt: skip
    with pytest.raises(InputError, match="baseline: .* model of another shape"):
        always_on(run, np.ones((2, 600)), "neurons",
                  AnalysisOptions(baseline=other.store.location))  # fmt: skip
