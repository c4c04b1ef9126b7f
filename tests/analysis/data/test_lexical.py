import numpy as np
import pyarrow as pa

from sparcom.analysis.data.lexical import lexical_overlap


def test_it_is_the_jaccard_of_the_counted_token_ids() -> None:
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 30, 12).tolist() for _ in range(7)]
    counted = [[2, 5, 8, 12]] * 5 + [[0, 12], []]
    found = lexical_overlap(pa.table({"token_ids": ids, "counted": counted}))
    sets = [
        {word for start, stop in zip(c[::2], c[1::2], strict=True) for word in i[start:stop]}
        for i, c in zip(ids, counted, strict=True)
    ]
    for a, first in enumerate(sets):
        for b, second in enumerate(sets):
            union = len(first | second)
            assert found[a, b] == np.float32(len(first & second) / union if union else 0)
