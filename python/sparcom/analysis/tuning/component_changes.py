"""Which components joined or left the sets: an exact sign test over clusters for each."""

import numpy as np
import pyarrow as pa
from scipy import stats

from sparcom.analysis.data.bitsets import column_counts
from sparcom.component_list import component_table
from sparcom.components import ComponentSpace

LEAST = 6
"""Six clusters of one direction are the fewest that reach p < 0.05, two-sided."""

Pair = tuple[np.ndarray, np.ndarray]
"""Packed sets, [n, bytes] each, of the same instructions in two runs."""


def component_changes(
    family: str, sets: Pair, space: ComponentSpace, clusters: np.ndarray, floor: Pair | None
) -> pa.Table:
    """Sign test of every component with a net change in `LEAST` clusters or more.

    A cluster gained a component if more of its instructions gained than lost it. With a noise
    floor, what counts is the change of the sets minus that of the floor, and, since a floor has no
    direction, the change plus that of the floor: both must have the direction of the change, and p
    is the larger one. So a component that rounding moves as much is not found.

    clusters: [n]. Rows: the component; gained, lost, floor_gained, floor_lost: instructions (of the
    floor: null without one); clusters_gained, clusters_lost; p; and q (Benjamini-Hochberg), the
    smallest first. The filter looks at the number of changes only, not at their direction, so the
    test stays valid.
    """
    size = space.experts if family == "experts" else space.neurons
    ups, downs, floors = _net(sets, clusters, floor, size)
    index = np.flatnonzero((ups + downs).min(0) >= LEAST)
    ups, downs, changed = ups[:, index], downs[:, index], _counts(sets, size)[:, index]
    tests = sign_test(ups, downs)
    direction = np.sign(ups[0] - downs[0])
    tests[np.sign(ups - downs) != direction] = 1.0
    p = tests.max(0)
    q = stats.false_discovery_control(p)
    order = np.argsort(q, kind="stable")
    table = component_table(space, family, index[order])
    missing = pa.nulls(len(index), pa.int32())
    columns = {
        "gained": changed[0][order],
        "lost": changed[1][order],
        "clusters_gained": ups[0][order],
        "clusters_lost": downs[0][order],
        "floor_gained": missing if floors is None else floors[0][index][order],
        "floor_lost": missing if floors is None else floors[1][index][order],
        "p": p[order],
        "q": q[order],
    }
    for name, values in columns.items():
        column = values if isinstance(values, pa.Array) else pa.array(values)
        table = table.append_column(name, column)
    return table


def sign_test(gained: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """[tests] exact two-sided p of gained against lost, Bin(gained + lost, 1/2) (McNemar's test).

    >>> sign_test(np.array([6, 3]), np.array([0, 3]))
    array([0.03125, 1.     ])
    """
    return np.minimum(2 * stats.binom.cdf(np.minimum(gained, lost), gained + lost, 0.5), 1.0)


def _net(
    sets: Pair, clusters: np.ndarray, floor: Pair | None, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(clusters gained, clusters lost, changes of the floor).

    Clusters are [figures, components]: of the change alone, and of the change minus and plus the
    floor's, if there is one.
    """
    figures = 1 if floor is None else 3
    ups, downs = (np.zeros((figures, size), np.int32) for _ in range(2))
    for cluster in np.unique(clusters):
        rows = clusters == cluster
        gained, lost = _counts((sets[0][rows], sets[1][rows]), size)
        nets = [gained - lost]
        if floor is not None:
            gained, lost = _counts((floor[0][rows], floor[1][rows]), size)
            nets += [nets[0] - (gained - lost), nets[0] + (gained - lost)]
        for at, net in enumerate(nets):
            ups[at] += net > 0
            downs[at] += net < 0
    return ups, downs, None if floor is None else _counts(floor, size)


def _counts(sets: Pair, size: int) -> np.ndarray:
    """[2, size] int32: instructions that gained each component, and that lost it."""
    first, second = sets
    return np.stack([column_counts(m)[:size] for m in (second & ~first, first & ~second)])
