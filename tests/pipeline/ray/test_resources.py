"""What a cluster lacks, told from numbers alone."""

import pytest

from sparcom.config import RunConfig
from sparcom.errors import InputError
from sparcom.pipeline.ray.pool import actor_arguments
from sparcom.pipeline.ray.resources import Resources, missing_resources, resources_of
from sparcom.pipeline.ray.session import check_resources, local_options


def test_resources_follow_the_config() -> None:
    config = RunConfig(actors=4, cpus=2, gpus=1, memory=3.5, resources="A100=1, fast=0.5")
    each = {"CPU": 2.0, "GPU": 1, "memory": 3.5e9, "A100": 1.0, "fast": 0.5}
    assert resources_of(config, 100) == Resources(4, each)
    assert resources_of(config, 3).actors == 3  # no more than there are parts
    assert actor_arguments(config) == {
        "num_cpus": 2.0, "num_gpus": 1, "memory": 3.5e9, "resources": {"A100": 1.0, "fast": 0.5},
        "max_concurrency": 2, "max_restarts": 3, "max_task_retries": 3,
    }  # fmt: skip


def test_a_replica_of_workers_leads_them_without_a_gpu_of_its_own() -> None:
    config = RunConfig(engine="vllm", tensor_parallel=2, cpus=3, gpus=1, actors=2)
    resources = resources_of(config, 10)
    assert resources.bundles == [{"CPU": 1.0}, {"CPU": 3.0, "GPU": 1}, {"CPU": 3.0, "GPU": 1}]
    assert (resources.total("CPU"), resources.total("GPU")) == (14, 4)
    assert "num_gpus" not in actor_arguments(config)


MACHINE = {"CPU": 8.0, "GPU": 1.0, "memory": 16e9}


@pytest.mark.parametrize(
    ("resources", "machines", "free", "message"),
    [
        (Resources(2, {"CPU": 4.0}), [MACHINE], MACHINE, ""),
        (
            Resources(1, {"CPU": 4.0, "GPU": 2.0}),
            [MACHINE, MACHINE],
            MACHINE,
            "none of 2 machines can hold an actor; the best lacks 2 GPU (has 1 GPU)",
        ),
        (
            Resources(1, {"CPU": 1.0, "memory": 32e9}),
            [MACHINE],
            MACHINE,
            "the best lacks 32.0 GB memory (has 16.0 GB memory)",
        ),
        (
            Resources(3, {"CPU": 2.0, "GPU": 1.0}),
            [MACHINE, MACHINE],
            {"CPU": 12.0, "GPU": 0.5},
            "the cluster is smaller than 3 actors need: 3 GPU (has 2 GPU, 0.5 GPU free)",
        ),
        (Resources(1, {"CPU": 1.0}), [], {}, "none of 0 machines can hold an actor"),
    ],
)
def test_what_lacks_is_named(resources, machines, free, message) -> None:
    said = missing_resources(resources, machines, free)
    assert (message in said) if message else said == ""


def test_a_local_ray_refuses_what_this_machine_has_not(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("sparcom.pipeline.ray.session._gpus", lambda: 1)
    with pytest.raises(InputError, match="2 actors take 2 GPUs, this machine has 1"):
        check_resources(RunConfig(actors=2, gpus=1))
    with pytest.raises(InputError, match="only a cluster's machines have further resources"):
        check_resources(RunConfig(resources="A100=1"))
    options = local_options(RunConfig(actors=2, cpus=3), 5, tmp_path)
    assert (options["num_cpus"], options["include_dashboard"]) == (6, False)
    assert options["_node_ip_address"] == options["dashboard_host"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"resources": "A100"}, "--resources: expected NAME=AMOUNT"),
        ({"resources": "A100=-1"}, "--resources: expected NAME=AMOUNT"),
        ({"memory": 0.0}, "--memory: must be over 0"),
        ({"restarts": -1}, "--restarts: must be at least 0, got -1"),
        ({"actors": 4, "max_actors": 2}, "--max-actors: must be at least --actors 4"),
        ({"tensor_parallel": 2}, "only --engine vllm has them"),
    ],
)
def test_keys_of_the_cluster_are_checked(keys: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RunConfig(**keys)
