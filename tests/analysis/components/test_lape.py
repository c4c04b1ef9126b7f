import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparcom.analysis.components.lape import LapeRule, lape
from sparcom.errors import InputError


def _plain(counts: list[list[int]], tokens: list[int], rule: LapeRule) -> list[list[bool]]:
    """The rule in plain Python, from its description: lists, loops, math.log."""
    categories, size = len(counts), len(counts[0])
    p = [[counts[c][n] / tokens[c] for n in range(size)] for c in range(categories)]
    everything = sorted(value for row in p for value in row)

    def quantile(fraction: float) -> float:
        return everything[max(round(len(everything) * fraction), 1) - 1]

    scored = []
    for n in range(size):
        column = [p[c][n] for c in range(categories)]
        if not any(value > quantile(rule.filter) for value in column):
            continue
        shares = [value / sum(column) for value in column]
        entropy = -sum(s * math.log(s) for s in shares if s > 0)
        scored.append((round(entropy, 12) + 0.0, n))
    chosen = {n for _, n in sorted(scored)[: round(size * rule.top)]}
    return [[n in chosen and p[c][n] > quantile(rule.bar) for n in range(size)]
            for c in range(categories)]  # fmt: skip


fractions = st.sampled_from([0.05, 0.3, 0.5, 0.8, 0.95, 1.0])


@settings(max_examples=300)
@given(
    st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 60), st.integers(1, 30),
    fractions, fractions, fractions,
)  # fmt: skip
def test_rule_equals_its_plain_twin_at_all_thresholds(
    seed: int, categories: int, size: int, most: int, keep: float, top: float, bar: float
) -> None:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(most, 2 * most + 1, categories)
    counts = rng.integers(0, most + 1, (categories, size)) * (rng.random((categories, size)) < 0.7)
    rule = LapeRule(keep, top, bar)
    found = lape(counts, tokens, rule).selected
    assert found.tolist() == _plain(counts.tolist(), tokens.tolist(), rule)


def test_default_rule_on_a_large_table_finds_the_planted() -> None:
    rng = np.random.default_rng(0)
    counts = rng.binomial(1000, 0.02, (3, 2000))
    counts[1, 100:120] = rng.binomial(1000, 0.6, 20)
    found = lape(counts, np.full(3, 1000)).selected
    np.testing.assert_array_equal(np.flatnonzero(found[1]), np.arange(100, 120))
    assert not found[[0, 2]].any()
    assert found.tolist() == _plain(counts.tolist(), [1000] * 3, LapeRule())


def test_bad_input() -> None:
    with pytest.raises(InputError, match="LAPE top: expected a fraction over 0"):
        LapeRule(top=0)
    with pytest.raises(InputError, match="two categories or more"):
        lape(np.ones((1, 4)), np.array([5]))
    with pytest.raises(InputError, match=r"got tokens \[.*5.*0.*\]"):
        lape(np.ones((2, 4)), np.array([5, 0]))
