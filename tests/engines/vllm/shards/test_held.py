"""How the counts of a model's workers come together."""

from dataclasses import replace

import numpy as np
import pytest

from sparcom.components import Site, merge_shards
from sparcom.counting.counted import Counted
from sparcom.engines.vllm.shards.held import HeldSite, assemble, merge_parts
from sparcom.errors import CountError

DENSE = Site("dense", 0, 4, "silu")
ROUTED = Site("routed", 1, 4, "silu", True, 3, 2)
SHARED = Site("shared", 1, 6, "silu")


def workers(experts: bool) -> list[list[HeldSite]]:
    """Two workers, each with half of the units, or with whole experts of the routed site."""
    held = []
    for rank in (0, 1):
        half = [
            HeldSite(s, (rank * s.width // 2, (rank + 1) * s.width // 2)) for s in (SHARED, DENSE)
        ]
        whole = (HeldSite(ROUTED, (0, 4), (2, 0)), HeldSite(ROUTED, (0, 4), (1,)))
        slices = (HeldSite(ROUTED, (0, 2), (0, 1, 2)), HeldSite(ROUTED, (2, 4), (0, 1, 2)))
        held.append([*half, (whole if experts else slices)[rank]])
    return held


def parts_of(shards, whole: Counted) -> list[Counted]:
    return [
        replace(
            whole,
            neurons=whole.neurons[:, shard.neuron_indices()],
            experts=whole.experts[:, shard.expert_indices()],
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
def test_parts_give_the_whole_in_the_order_dense_routed_shared(whole, experts):
    space, shards = assemble(workers(experts))
    assert [site.name for site in space.sites] == ["layer0.dense", "layer1.routed", "layer1.shared"]
    merge_shards(shards)
    merged = merge_parts(shards, parts_of(shards, whole))
    np.testing.assert_array_equal(merged.neurons, whole.neurons)
    np.testing.assert_array_equal(merged.experts, whole.experts)
    assert merged.ids == whole.ids


def test_workers_with_the_same_experts_must_agree_on_their_rows(whole):
    _, shards = assemble(workers(False))
    first, second = parts_of(shards, whole)
    other = second.experts.copy()
    other[1] = [1, 3, 4]
    with pytest.raises(CountError, match="worker 1: its routed counts of instruction b differ"):
        merge_parts(shards, [first, replace(second, experts=other)])


def test_rows_that_no_worker_saw_are_missed(whole):
    _, shards = assemble(workers(True))
    first, second = parts_of(shards, whole)
    lost = second.experts - np.array([[1], [0]], np.int32)
    with pytest.raises(
        CountError, match=r"layer1.routed for instruction a add up to 9, expected 10"
    ):
        merge_parts(shards, [first, replace(second, experts=lost)])


def test_a_site_as_json_and_as_a_worker_counts_it():
    held = HeldSite(ROUTED, (2, 4), (0, 2))
    for one in (held, replace(held, apart=True)):
        assert HeldSite.from_json(one.to_json()) == one
    assert (held.local.width, held.local.experts, held.partial) == (2, 2, True)
    assert not HeldSite(DENSE, (0, 2)).partial
