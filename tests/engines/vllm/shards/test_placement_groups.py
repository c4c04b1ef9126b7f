"""Places of shard actors are free again when their leader is gone, though Ray keeps them."""

from collections.abc import Iterator

import pytest
import ray
from ray.util import placement_group_table

from sparcom.engines.vllm.shards import placement_groups


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    ray.init(
        num_cpus=3, include_dashboard=False, object_store_memory=100 << 20,
        _node_ip_address="127.0.0.1", log_to_driver=False,
    )  # fmt: skip
    yield
    ray.shutdown()


@ray.remote(num_cpus=1, max_restarts=1, max_task_retries=1)
class Leader:
    """Takes the CPUs that are left, both unless told otherwise."""

    def reserve(self, cpus: int = 2) -> bool:
        return placement_groups.reserve([{"CPU": 1}] * cpus, "STRICT_PACK").wait(30)


def taken() -> int:
    return sum(place["state"] == "CREATED" for place in placement_group_table().values())


def test_a_restarted_leader_takes_the_place_of_its_predecessor() -> None:
    leader = Leader.remote()
    assert ray.get(leader.reserve.remote())
    ray.kill(leader, no_restart=False)
    assert ray.get(leader.reserve.remote())
    assert taken() == 1
    ray.kill(leader)
    placement_groups.free_placement_groups_of_job()


def test_a_leader_of_two_groups_keeps_both_until_it_is_restarted() -> None:
    leader = Leader.remote()
    assert ray.get([leader.reserve.remote(1), leader.reserve.remote(1)]) == [True, True]
    assert taken() == 2
    ray.kill(leader, no_restart=False)
    assert ray.get(leader.reserve.remote(2))
    assert taken() == 1
    ray.kill(leader)
    placement_groups.free_placement_groups_of_job()


def test_what_a_dead_leader_left_is_free_for_the_next() -> None:
    leader = Leader.remote()
    assert ray.get(leader.reserve.remote())
    ray.kill(leader)
    assert taken() == 1  # as Ray has it: else this module is not needed
    placement_groups.free_placement_groups_of_job()
    after = Leader.remote()
    assert ray.get(after.reserve.remote())
    ray.kill(after)
    placement_groups.free_placement_groups_of_job()


def test_a_driver_s_own_group_is_left_alone() -> None:
    group = placement_groups.reserve([{"CPU": 1}], "PACK")
    assert group.wait(30)
    placement_groups.free_placement_groups_of_job()
    assert taken() == 1
    ray.util.remove_placement_group(group)
