"""A Ray to run on: a cluster, or a local one that leaves nothing behind."""

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from sparcom.config import RunConfig
from sparcom.errors import InputError, SparcomError
from sparcom.pipeline.ray.cleanup import SharedFiles, remove_noted, temporary_files_in
from sparcom.pipeline.ray.resources import resources_of
from sparcom.pipeline.signals import terminable, undisturbed
from sparcom.planning.options import cluster_address

_PREFIX = "sparcom-ray-"
_STORE_BYTES = 256 << 20  # only part numbers and figures pass through it
_AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@contextmanager
def ray_session(config: RunConfig, parts: int = sys.maxsize) -> Iterator[None]:
    """Ray within the block: the cluster that the config names, or a local one.

    The local one answers only its own processes, has no dashboard unless asked, and is gone with
    its files when the block ends. parts: how many there are to count. A Ray that runs in this
    process already is used as it is.
    """
    _quiet_ray()
    import ray

    if ray.is_initialized():
        yield
        return
    with ExitStack() as stack:
        if address := cluster_address(config):
            stack.callback(_end, ray)
            _start(ray, {"address": address})
        else:
            folder = stack.enter_context(ray_folder())
            stack.enter_context(SharedFiles(folder))
            stack.enter_context(_own_token())
            stack.callback(_end, ray)
            with temporary_files_in(folder / "tmp"):
                _start(ray, local_options(config, parts, folder))
        with terminable():  # Ray has put a handler of its own in the place of ours
            yield


@contextmanager
def _own_token() -> Iterator[None]:
    """The token that a local Ray asks for, known to its own processes only.

    Ray's servers listen on every interface, whatever address their node is given; a local Ray turns
    authentication on by itself, but would write a lasting token to ~/.ray. Where the environment
    says how to authenticate, that holds.
    """
    if any(os.environ.get(name) for name in _AUTH):
        _look_again()
        yield
        return
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    _look_again()
    try:
        yield
    finally:
        for name in _AUTH:
            os.environ.pop(name, None)
        _look_again()


def _look_again() -> None:
    """Make Ray read anew how to authenticate: it keeps the mode and the token that a process read
    first, and would hand them to servers that were started with others."""
    from ray._raylet import AuthenticationTokenLoader, Config

    Config.initialize("")  # first: who asks for a token in between must not be told to have one
    AuthenticationTokenLoader.instance().reset_cache()


def _end(ray: Any) -> None:
    with undisturbed():
        ray.shutdown()


def _start(ray: Any, options: dict[str, Any]) -> None:
    try:
        with _captured_stderr() as said:
            ray.init(logging_level="ERROR", log_to_driver=False, **options)
    except (
        ConnectionError, RuntimeError, ValueError, TimeoutError, ray.exceptions.RayError
    ) as error:  # fmt: skip
        where = f"the cluster at {options['address']}" if "address" in options else "a local Ray"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SparcomError(f"{where} could not be reached: {reason} {said()}".rstrip()) from error


def local_options(config: RunConfig, parts: int, folder: Path) -> dict[str, Any]:
    """What a local Ray is started with: room for all actors, and no more machine than there is."""
    resources = resources_of(config, parts)
    custom = config.custom_resources()
    if custom:
        raise InputError(
            f"--resources {config.resources}: only a cluster's machines have further resources; "
            "name the cluster with --ray-address"
        )
    if resources.total("GPU") > (gpus := _gpus()):
        raise InputError(
            f"--gpus: {resources.actors} actors take {resources.total('GPU'):g} GPUs, this machine "
            f"has {gpus}; ask for fewer, or name a cluster with --ray-address"
        )
    return {
        # One logical CPU more than the actors take: Ray Data has small tasks of its own.
        "num_cpus": int(resources.total("CPU")) + 1,
        "include_dashboard": config.dashboard,
        "dashboard_host": "127.0.0.1",
        "object_store_memory": _STORE_BYTES,
        "_node_ip_address": "127.0.0.1",
        "_temp_dir": str(folder),
    }


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


@contextmanager
def ray_folder() -> Iterator[Path]:
    """A folder for Ray's sockets and logs, within the block; those of killed drivers are removed.

    Its path must be short: the names of Unix sockets hold 107 bytes.
    """
    base = Path(tempfile.gettempdir())
    if len(str(base)) > 30:
        base = Path("/tmp")
    for old in base.glob(f"{_PREFIX}*"):
        pid = old.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            remove_noted(old)
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=base))
    try:
        yield folder
    finally:
        with undisturbed():
            shutil.rmtree(folder, ignore_errors=True)


def _quiet_ray() -> None:
    """Keep Ray's own remarks out of our output; its errors still come as exceptions."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@contextmanager
def _captured_stderr() -> Iterator[Any]:
    """Keep what is written to file descriptor 2, where Ray's C++ part announces its log level;
    yields a function that returns its last line."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        last = ""

        def said() -> str:
            return last

        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines = file.read().decode(errors="replace").strip().splitlines()
            last = f"({lines[-1]})" if lines else ""
