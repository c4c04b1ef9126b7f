import numpy as np
import pytest
from scipy.stats import binomtest

from sparcom.analysis.stats.wilson import wilson


def test_wilson_covers_and_knows_the_ends() -> None:
    low, high = wilson(np.array([0, 5, 10, 0]), np.array([10, 10, 10, 0]))
    assert low[0] == pytest.approx(0)
    assert high[2] == pytest.approx(1)
    assert (low[3], high[3]) == (0, 1)
    assert low[1] == pytest.approx(0.2366, abs=1e-4)
    assert high[1] == pytest.approx(0.7634, abs=1e-4)


def test_wilson_is_that_of_scipy() -> None:
    k, n = np.array([0, 3, 17, 40]), np.array([5, 9, 20, 40])
    found = np.stack(wilson(k, n), 1)
    expected = [binomtest(a, b).proportion_ci(method="wilson") for a, b in zip(k, n, strict=True)]
    np.testing.assert_allclose(found, [(e.low, e.high) for e in expected], atol=1e-12)
