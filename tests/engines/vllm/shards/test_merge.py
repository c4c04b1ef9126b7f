"""How the counts of a model's workers come together."""

from dataclasses import replace

import numpy as np
import pytest

from sparcom.components import LocalSite, Site, shards_of
from sparcom.counting.counted import Counted
from sparcom.counting.magnitudes import EXPERTS, NEURONS, Magnitudes
from sparcom.engines.vllm.shards.merge import merge_counts
from sparcom.errors import CountError

DENSE = Site("dense", 0, 4, "silu")
ROUTED = Site("routed", 1, 4, "silu", experts=3, top_k=2)
SHARED = Site("shared", 1, 6, "silu")


def workers(experts: bool) -> list[list[LocalSite]]:
    """Two workers, each with half of the units, or with whole experts of the routed site."""
    found = []
    for rank in (0, 1):
        half = [
            LocalSite(s, (rank * s.width // 2, (rank + 1) * s.width // 2)) for s in (SHARED, DENSE)
        ]
        whole = (LocalSite(ROUTED, (0, 4), (2, 0)), LocalSite(ROUTED, (0, 4), (1,)))
        slices = (LocalSite(ROUTED, (0, 2), (0, 1, 2)), LocalSite(ROUTED, (2, 4), (0, 1, 2)))
        found.append([*half, (whole if experts else slices)[rank]])
    return found


def parts_of(shards, whole: Counted) -> list[Counted]:
    return [
        replace(
            whole,
            neurons=whole.neurons[:, shard.neuron_indices()],
            experts=whole.experts[:, shard.expert_indices()],
            signs=None if whole.signs is None else whole.signs[:, :, shard.neuron_indices()],
            magnitudes=None
            if whole.magnitudes is None
            else Magnitudes(
                *(getattr(whole.magnitudes, n)[:, shard.neuron_indices()] for n in NEURONS),
                *(getattr(whole.magnitudes, n)[:, shard.expert_indices()] for n in EXPERTS),
            ),
        )
        for shard in shards
    ]


@pytest.fixture
def whole() -> Counted:
    rng = np.random.default_rng(0)
    experts = np.array([[5, 3, 2], [0, 4, 4]], np.int32)
    neurons = rng.integers(0, 3, (2, 4 + 12 + 6), dtype=np.int32)
    return Counted(("a", "b"), np.array([5, 4]), neurons, experts)


@pytest.mark.parametrize("experts", [True, False])
def test_parts_give_the_whole(whole, experts):
    shards = shards_of(workers(experts))
    merged = merge_counts(shards, parts_of(shards, whole))
    np.testing.assert_array_equal(merged.neurons, whole.neurons)
    np.testing.assert_array_equal(merged.experts, whole.experts)
    assert merged.ids == whole.ids


@pytest.mark.parametrize("experts", [True, False])
def test_parts_with_signs_give_the_whole(whole, experts):
    signs = np.arange(2 * whole.neurons.size, dtype=np.int32).reshape(2, *whole.neurons.shape)
    shards, with_signs = shards_of(workers(experts)), replace(whole, signs=signs)
    merged = merge_counts(shards, parts_of(shards, with_signs))
    np.testing.assert_array_equal(merged.signs, signs)
    assert merge_counts(shards, parts_of(shards, whole)).signs is None


def test_parts_with_magnitudes_give_the_whole(whole):
    rng = np.random.default_rng(1)
    widths = [whole.neurons.shape[1]] * len(NEURONS) + [3] * len(EXPERTS)
    magnitudes = Magnitudes(*(rng.normal(size=(2, width)) for width in widths))
    shards, more = shards_of(workers(True)), replace(whole, magnitudes=magnitudes)
    merged = merge_counts(shards, parts_of(shards, more)).magnitudes
    for name in (*NEURONS, *EXPERTS):
        np.testing.assert_array_equal(getattr(merged, name), getattr(magnitudes, name))


def test_workers_with_the_same_experts_must_agree_on_their_rows(whole):
    shards = shards_of(workers(False))
    first, second = parts_of(shards, whole)
    other = second.experts.copy()
    other[1] = [1, 3, 4]
    with pytest.raises(CountError, match="worker 1: its routed counts of instruction b differ"):
        merge_counts(shards, [first, replace(second, experts=other)])


def test_rows_that_no_worker_saw_are_missed(whole):
    shards = shards_of(workers(True))
    first, second = parts_of(shards, whole)
    lost = second.experts - np.array([[1], [0]], np.int32)
    with pytest.raises(
        CountError, match=r"layer1.routed for instruction a add up to 9, expected 10"
    ):
        merge_counts(shards, [first, replace(second, experts=lost)])
