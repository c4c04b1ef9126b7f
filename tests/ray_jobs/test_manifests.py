"""The cluster files: YAML that names what is here. No cluster reads them in these tests."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from sparcom.config_file import load_config

ROOT = Path(__file__).parents[2]
JOBS = ROOT / "ray_jobs"
PINNED = re.search(r"^ray==(\S+)$", (ROOT / "requirements/run.txt").read_text(), re.M)[1]


@pytest.fixture(scope="module")
def kube() -> dict[str, dict]:
    documents = yaml.safe_load_all((JOBS / "rayjob.yaml").read_text("utf-8"))
    return {document["kind"]: document for document in documents}


def test_the_config_of_the_rayjob_is_one_that_a_run_takes(kube, tmp_path: Path) -> None:
    (text,) = kube["ConfigMap"]["data"].values()
    (tmp_path / "config.toml").write_text(text)
    config = load_config(tmp_path / "config.toml", {})
    assert config.out == tomllib.loads(text)["out"]
    assert config.out in kube["RayJob"]["spec"]["entrypoint"]


def test_the_rayjob_starts_a_job_that_is_there_on_the_pinned_ray(kube) -> None:
    spec = kube["RayJob"]["spec"]
    assert (JOBS / re.search(r"python (\w+\.py)", spec["entrypoint"])[1]).is_file()
    assert spec["rayClusterSpec"]["rayVersion"] == PINNED
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_launcher_names_node_types_that_it_defines() -> None:
    cluster = yaml.safe_load((JOBS / "cluster.yaml").read_text("utf-8"))
    assert cluster["head_node_type"] in cluster["available_node_types"]
