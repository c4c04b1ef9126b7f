"""Clusters: the unit of evidence.

Instructions that share a template, a task kind or a collection are alike whatever their category,
so that they count as one observation. The cluster of an instruction is

1. its field `cluster`, if it has one (`--cluster FIELD` names another field of the records);
2. what its `origin` says (`cluster_name`);
3. itself, if both are empty. Nothing is known of its likeness to others then: tests take it as
   independent, and the analysis warns of it.
"""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
import pyarrow as pa

OURS = "sparcom:"
"""What the origins of our own records start with."""


def cluster_name(origin: str) -> str:
    """The cluster that an origin names; "" if the origin is empty.

    Of our own records `sparcom:CATEGORY/KIND/topic` it is the task kind, `sparcom:CATEGORY/KIND`,
    and of `sparcom:matched/PASSAGE` the passage, which holds every category. Of a web address it is
    the host, and of all else the collection: what stands before the first ':'.

    >>> cluster_name("sparcom:CLS/sentiment/kitchen-appliances")
    'sparcom:CLS/sentiment'
    >>> cluster_name("openai/grade-school-math:data/test.jsonl#line836")
    'openai/grade-school-math'
    """
    if origin.startswith(OURS):
        return "/".join(origin.split("/")[:2])
    _, address, host = origin.partition("://")
    if address:
        return host.partition("/")[0].strip()
    return origin.partition(":")[0].strip()


def with_clusters(labels: pa.Table) -> pa.Table:
    """The table with a resolved column `cluster`: a name for each row, never empty.

    labels: columns id, origin and, unless an older version wrote the run, cluster.
    """
    origins = labels["origin"].to_pylist()
    known = "cluster" in labels.column_names
    given = labels["cluster"].to_pylist() if known else [""] * len(labels)
    ids = labels["id"].to_pylist()
    names = [
        named or cluster_name(origin) or unclustered(name)
        for named, origin, name in zip(given, origins, ids, strict=True)
    ]
    column = pa.array(names, pa.string())
    if not known:
        return labels.append_column("cluster", column)
    return labels.set_column(labels.column_names.index("cluster"), "cluster", column)


def unclustered(identifier: str) -> str:
    """The cluster of an instruction that names neither cluster nor origin: itself."""
    return f"id:{identifier}"


def is_unclustered(cluster: str) -> bool:
    """True if the cluster is an instruction of which no cluster is known."""
    return cluster.startswith("id:")


def turns(categories: Sequence[Hashable], clusters: Sequence[str]) -> np.ndarray:
    """[n] int64: how many instructions of the same category and cluster come before each: of a
    category, those of the lowest turns are of as many clusters as possible.

    >>> turns(["A", "A", "A"], ["x", "x", "y"]).tolist()
    [0, 1, 0]
    """
    seen: Counter[tuple[Hashable, str]] = Counter()
    out = np.zeros(len(clusters), np.int64)
    for row, key in enumerate(zip(categories, clusters, strict=True)):
        out[row] = seen[key]
        seen[key] += 1
    return out
