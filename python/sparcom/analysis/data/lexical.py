"""Lexical overlap: how many counted tokens two instructions have in common."""

import numpy as np
import pyarrow as pa
from scipy import sparse


def lexical_overlap(table: pa.Table) -> np.ndarray:
    """[n, n] float32: Jaccard of the sets of counted token ids; 0 if either counts none.

    table: columns token_ids and counted (start, stop, start, stop, ...) of the prompts.
    """
    rows, columns = [], []
    prompts = zip(table["token_ids"].to_pylist(), table["counted"].to_pylist(), strict=True)
    for row, (ids, counted) in enumerate(prompts):
        spans = zip(counted[::2], counted[1::2], strict=True)
        words = sorted({word for start, stop in spans for word in ids[start:stop]})
        rows += [row] * len(words)
        columns += words
    shape = (len(table), max(columns, default=0) + 1)
    held = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape)
    shared = (held @ held.T).toarray()
    size = np.diagonal(shared)
    union = size[:, None] + size - shared
    return np.divide(shared, union, out=np.zeros(shared.shape, np.float32), where=union > 0)
