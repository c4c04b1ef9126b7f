"""A model in shards, by vLLM's own processes and by Ray actors: the same counts as in one piece."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_model
from vllm_tools import SHAPE, by_id, make_prompts, reference, share_of_differing_cells

from sparcom.engines.base import PromptError
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.engines.vllm.shards.group import ShardGroup

pytest.importorskip("vllm", reason="vLLM is not installed")

LENGTHS = [1, 2, 128, 127, 60, 33, 5, 90, 17, 48]
SPLITS = [{"tensor_parallel": 2}, {"pipeline_parallel": 2}]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("llama"), "llama", torch.float32, **SHAPE)


@pytest.fixture(scope="module")
def expected(folder):
    return reference(folder, make_prompts(LENGTHS))


@pytest.fixture(scope="module")
def ray_here():
    import ray

    ray.init(
        num_cpus=4, include_dashboard=False, object_store_memory=128 << 20,
        _node_ip_address="127.0.0.1", log_to_driver=False,
    )  # fmt: skip
    yield ray
    ray.shutdown()


def options(folder, split: dict) -> VllmOptions:
    return VllmOptions(
        str(folder), dtype="float32", batch_tokens=64, slots=4, verify=True, threads=1, **split
    )


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("split", SPLITS, ids=lambda s: next(iter(s)))
def test_processes_of_vllm(folder, expected, split, compiled):
    engine = VllmEngine(replace(options(folder, split), compile=compiled))
    try:
        assert len(engine.shards) == 2
        ours = by_id(engine.count(make_prompts(LENGTHS)))
        assert share_of_differing_cells(ours, expected) <= 1e-4
        # Only its shard says which neurons a worker's are: laid side by side they are others.
        for part in engine.count_parts(make_prompts(LENGTHS[:3])):
            for at, name in enumerate(part.ids):
                beside = np.concatenate([one.neurons[at] for one in part.parts[::-1]])
                assert (beside != expected[name][1]).any()
    finally:
        engine.close()


@pytest.mark.parametrize("split", SPLITS, ids=lambda s: next(iter(s)))
def test_ray_actors_that_each_hold_a_shard(folder, expected, ray_here, split):
    group = ShardGroup(options(folder, split))
    try:
        prompts = make_prompts(LENGTHS)
        ours = by_id(group.count(prompts))
        assert share_of_differing_cells(ours, expected) <= 1e-4
        again = by_id(group.count(prompts))
        assert all(np.array_equal(ours[k][1], again[k][1]) for k in ours)

        def fired(shard, counted):  # beside the counts: only its result travels
            return int(counted.neurons.sum()), counted.neurons.shape[1]

        parts = list(group.map(prompts, fired))
        total = sum(n for reply in parts for n, _ in reply)
        assert total == sum(int(row.sum()) for _, row in ours.values())
        assert sum(width for _, width in parts[0]) == group.space.neurons
    finally:
        group.close()


def test_two_groups_on_one_machine_keep_apart(folder, expected, ray_here):
    """vLLM names the shared memory of CPU sums; groups that share a name add up each other's."""
    groups = [ShardGroup(options(folder, SPLITS[0])) for _ in range(2)]
    try:
        streams = [group.count(make_prompts(LENGTHS)) for group in groups]
        found = [[next(stream)] for stream in streams]
        for rest, stream in zip(found, streams, strict=True):
            rest.extend(stream)
            assert share_of_differing_cells(by_id(rest), expected) <= 1e-4
    finally:
        for group in groups:
            group.close()


def test_a_lost_actor_fails_what_is_under_way_and_the_group_starts_again(folder, ray_here):
    group = ShardGroup(options(folder, SPLITS[0]))
    try:
        prompts = make_prompts([100] * 40)
        results = group.count(prompts)
        done = list(next(results).ids)
        ray_here.kill(group._ranks.current._actors[1])
        with pytest.raises(PromptError, match="forward pass failed on") as caught:
            done.extend(name for counted in results for name in counted.ids)
        assert set(caught.value.ids) == {p.id for p in prompts} - set(done)
        assert len(by_id(group.count(prompts[:5]))) == 5
    finally:
        group.close()
