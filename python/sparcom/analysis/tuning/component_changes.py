"""Which components joined or left the sets: an exact sign test for each."""

import numpy as np
import pyarrow as pa
from scipy import stats

from sparcom.analysis.data.bitsets import column_counts
from sparcom.component_list import component_table
from sparcom.components import ComponentSpace

LEAST = 6
"""Six changes of one direction are the fewest that reach p < 0.05, two-sided."""


def component_changes(
    family: str, first: np.ndarray, second: np.ndarray, space: ComponentSpace
) -> pa.Table:
    """Sign test of every component whose membership changed in `LEAST` instructions or more.

    first, second: [n, bytes] packed sets of the same instructions. Rows: the component, gained,
    lost, p, and q (Benjamini-Hochberg), the smallest first. The filter looks at the number of
    changes only, not at their direction, so the test stays valid.
    """
    size = space.experts if family == "experts" else space.neurons
    gained, lost = (column_counts(m)[:size] for m in (second & ~first, first & ~second))
    index = np.flatnonzero(gained + lost >= LEAST)
    p = sign_test(gained[index], lost[index])
    q = stats.false_discovery_control(p)
    order = np.argsort(q, kind="stable")
    index = index[order]
    table = component_table(space, family, index)
    for name, values in (
        ("gained", gained[index]),
        ("lost", lost[index]),
        ("p", p[order]),
        ("q", q[order]),
    ):
        table = table.append_column(name, pa.array(values))
    return table


def sign_test(gained: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """[tests] exact two-sided p of gained against lost, Bin(gained + lost, 1/2) (McNemar's test).

    >>> sign_test(np.array([6, 3]), np.array([0, 3]))
    array([0.03125, 1.     ])
    """
    return np.minimum(2 * stats.binom.cdf(np.minimum(gained, lost), gained + lost, 0.5), 1.0)
