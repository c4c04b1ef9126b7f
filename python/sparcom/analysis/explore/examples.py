"""Text examples: for each unit that the report names, the instructions in which it fires most.

Named are the enriched and depleted components of `enriched_FAMILY`, all specific and unique ones,
and of each layer the `TOP` that most sets hold. They are found in the counts that the component
tests have read, so that examples cost no pass over the model.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from sparcom.analysis.components.component_tables import LARGEST
from sparcom.analysis.components.family_components import FamilyComponents
from sparcom.analysis.data.frequencies import Frequencies
from sparcom.analysis.data.labels import Labels
from sparcom.analysis.data.membership import Membership
from sparcom.analysis.data.sites import family_sites
from sparcom.component_list import component_table
from sparcom.components import ComponentSpace

TOP = 10
"""Components of each site, of those that most sets hold."""
EVERY = 20_000
"""Up to so many components that any set holds, all of them have examples."""


def examples_table(
    components: Mapping[str, FamilyComponents],
    memberships: Mapping[str, Membership],
    frequencies: Mapping[str, Frequencies],
    labels: Labels,
    space: ComponentSpace,
    most: int,
) -> pa.Table:
    """Up to `most` rows per component: its instructions with the highest c / T, highest first.

    Among equal shares the longest instruction comes first; one in which it never fires is left out.
    """
    tables = [
        _family(name, named_components(result, memberships[name], space), frequencies[name],
                labels, space, most)
        for name, result in components.items()
    ]  # fmt: skip
    return pa.concat_tables(tables)


def named_components(
    result: FamilyComponents, membership: Membership, space: ComponentSpace
) -> np.ndarray:
    """Sorted flat indices of the components that have examples."""
    held = membership.totals()
    if (held > 0).sum() <= EVERY:
        found = [np.flatnonzero(held)]
    else:
        found = [np.flatnonzero(result.generality.unique >= 0)]
        for site in family_sites(space, result.family):
            order = np.argsort(-held[site.part], kind="stable")[:TOP]
            found.append(site.part.start + order[held[site.part][order] > 0])
    if result.test is not None:
        found.append(np.flatnonzero(result.test.specific.any(0)))
        for is_in, sign in ((result.test.enriched, -1), (result.test.depleted, 1)):
            for c, row in enumerate(is_in):
                at = np.flatnonzero(row)
                order = np.argsort(sign * result.test.difference[c, at], kind="stable")
                found.append(at[order[:LARGEST]])
    return np.unique(np.concatenate(found))


def _family(
    family: str,
    components: np.ndarray,
    frequencies: Frequencies,
    labels: Labels,
    space: ComponentSpace,
    most: int,
) -> pa.Table:
    rows, of, rank, counts = [], [], [], []
    tokens = np.maximum(frequencies.tokens, 1)
    longest = np.argsort(-tokens, kind="stable")  # ties of c / T go to the longest
    for start in range(0, len(components), 1024):
        some = components[start : start + 1024]
        block = frequencies.counts[:, some][longest]
        share = block / tokens[longest, None]
        order = np.argsort(-share, axis=0, kind="stable")[:most]
        found = np.take_along_axis(block, order, 0)
        at, place = np.nonzero(found.T)
        rows.append(longest[order.T[at, place]])
        counts.append(found.T[at, place])
        of.append(some[at])
        rank.append(place + 1)
    row, component, count = (
        np.concatenate([np.zeros(0, np.int64), *x]) for x in (rows, of, counts)
    )
    table = component_table(space, family, component)
    columns = {
        "rank": pa.array(np.concatenate([np.zeros(0, np.int64), *rank]), pa.int64()),
        "id": pa.array([labels.ids[r] for r in frequencies.rows[row]], pa.string()),
        "count": pa.array(count, pa.int64()),
        "tokens": pa.array(frequencies.tokens[row], pa.int64()),
        "frequency": pa.array(count / tokens[row], pa.float64()),
    }
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table
