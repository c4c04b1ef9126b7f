"""Random counts of two small component spaces, and their comparison."""

import numpy as np

from sparcom.components import ComponentSpace, Site
from sparcom.counting.counted import Counted

DENSE = ComponentSpace((Site("dense", 0, 11, "silu"), Site("dense", 1, 6, "silu")))
MOE = ComponentSpace(
    (Site("dense", 0, 5, "silu"), Site("routed", 1, 2, "silu", experts=9, top_k=2))
)


def counted_of(space: ComponentSpace, ids: tuple[str, ...], seed: int = 0, top: int = 9) -> Counted:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, top + 1, len(ids))
    return Counted(
        ids,
        tokens,
        rng.integers(0, tokens[:, None] + 1, (len(ids), space.neurons)).astype(np.int32),
        rng.integers(0, tokens[:, None] + 1, (len(ids), space.experts)).astype(np.int32),
    )


def assert_equal(a: object, b: object) -> None:
    """Two Counted or two Sets: ids, every array, and its shape."""
    assert type(a) is type(b)
    for name, value in vars(a).items():
        if not isinstance(value, np.ndarray):
            assert value == getattr(b, name)
        else:
            np.testing.assert_array_equal(value, getattr(b, name))
            assert value.shape == getattr(b, name).shape
