"""A Ray to run on: a cluster, or a local one that leaves nothing behind."""

import atexit
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from sparcom.config import RunConfig
from sparcom.errors import InputError, RayDiedError, SparcomError
from sparcom.pipeline.ray.cleanup import SharedFiles, remove_noted, temporary_files_in
from sparcom.pipeline.ray.guard import LocalRayGuard
from sparcom.pipeline.ray.resources import resources_of
from sparcom.pipeline.signals import stop_on_sigterm, undisturbed
from sparcom.planning.options import cluster_address

_PREFIX = "sparcom-ray-"
_STORE_BYTES = 256 << 20  # only part numbers and figures pass through it
_SLOW_START = "timed out during startup"
_CONNECT_S = 10.0
_AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def ray_runs() -> bool:
    """True if this process has a Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@contextmanager
def ray_session(
    config: RunConfig, parts: int = sys.maxsize, meanwhile: Callable[[], None] | None = None
) -> Iterator[None]:
    """Ray within the block: the cluster that the config names, or a local one.

    The local one answers only its own processes, has no dashboard unless asked, and is gone with
    its files when the block ends. A Ray that runs in this process already is used as it is.
    parts: how many there are to count.
    meanwhile: is run in a thread while a local Ray starts, which mostly waits; the block begins
    when it has ended.
    """
    _quiet_ray()
    import ray

    _errors_to_stderr()
    if ray.is_initialized():
        yield
        return
    check_resources(config)
    with ExitStack() as stack:
        if address := cluster_address(config):
            stack.callback(_end, ray)
            _meet_head(address)
            _start(ray, {"address": address})
        else:
            folder = stack.enter_context(ray_folder())
            stack.enter_context(SharedFiles(folder))
            stack.enter_context(_own_token())
            guard = LocalRayGuard()
            stack.callback(_end, ray, guard)
            with _beside(meanwhile), temporary_files_in(folder / "tmp"):
                _start(ray, local_options(config, parts, folder))
            stack.enter_context(_told_of_death(guard))
        with stop_on_sigterm():  # Ray has put a handler of its own in the place of ours
            yield


@contextmanager
def _beside(work: Callable[[], None] | None) -> Iterator[None]:
    """Run `work` in a thread beside the block; raises what it raised."""
    if work is None:
        yield
        return
    with ThreadPoolExecutor(1, "sparcom-beside") as pool:
        done = pool.submit(work)
        yield
        done.result()


@contextmanager
def _told_of_death(guard: LocalRayGuard) -> Iterator[None]:
    """Within the block, the death of a local Ray's server is an error that names it."""
    try:
        with guard:
            yield
    except BaseException as error:
        if guard.died:
            raise RayDiedError(
                f"the local Ray died (its {guard.died} has ended: killed, or out of memory?); what "
                "is stored is kept, and --resume finishes the run"
            ) from error
        raise


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
    """Make Ray read again how to authenticate: it keeps the mode and the token that a process read
    first, and would hand them to servers that were started with others."""
    from ray import _raylet  # Ray 2.60 has no public way

    ray_internals: Any = _raylet

    ray_internals.Config.initialize(
        ""
    )  # first: who asks for a token in between must not be told to have one
    ray_internals.AuthenticationTokenLoader.instance().reset_cache()


def _end(ray: Any, guard: LocalRayGuard | None = None) -> None:
    with undisturbed():
        if guard is not None and guard.died:
            guard.kill_rest()
            atexit.unregister(ray.shutdown)  # it would wait for what is gone
        else:
            ray.shutdown()


def _start(ray: Any, options: dict[str, Any], tries: int = 2) -> None:
    """Start a local Ray, or connect to a cluster; one that was too slow is tried once more."""
    try:
        with _captured_stderr() as said:
            ray.init(logging_level="ERROR", log_to_driver=False, **options)
    except Exception as error:  # ray.init raises plain Exceptions too
        reason = _first_line(error)
        if "address" in options:
            raise _not_reached(options["address"], reason) from error
        if _SLOW_START in reason and tries > 1:
            _end(ray)
            return _start(ray, options, tries - 1)
        message = f"a local Ray could not be started: {reason} {said()}"
        raise SparcomError(message.rstrip()) from error


def _meet_head(address: str) -> None:
    """Raise SparcomError if no head of Ray answers at an address.

    `ray.init` asks twenty times: it hides for 13 minutes that a head hangs, and for 20 seconds that
    it does not take our token.
    """
    from ray import _raylet  # Ray 2.60 has no public way
    from ray._private import services
    from ray.exceptions import RpcError

    if "://" in address:  # Ray's client has a time limit
        return
    ray_internals: Any = _raylet
    try:
        with _captured_stderr():
            head = services.canonicalize_bootstrap_address(address)
            if head is not None:  # else `ray.init` says that "auto" has found none
                ray_internals.GcsClient(address=head)  # waits 40 seconds for an answer
    except Exception as error:  # plain ones of Ray's C++ part too
        reason = _first_line(error)
        if isinstance(error, RpcError):
            reason = f"no head of Ray answers there ({reason.rstrip('.')}); does it hang?"
        raise _not_reached(address, reason) from error


def _not_reached(address: str, reason: str) -> SparcomError:
    return SparcomError(f"the cluster at {address} could not be reached: {reason}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def check_resources(config: RunConfig) -> None:
    """Raise an error if it is plain, before Ray starts, that the actors find no place.

    InputError if this machine lacks what the actors of a local Ray take, or the cluster's address
    is none; SparcomError if nothing answers there.
    """
    if (address := cluster_address(config)) is None:
        _check_machine(config)
        return
    scheme, found, place = address.rpartition("://")
    if address == "auto" or (found and scheme not in ("ray", "http", "https")):
        return  # Ray alone understands it
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal() or scheme.startswith("http"):
        raise InputError(
            f"--ray-address: expected HOST:PORT of a head, ray://HOST:PORT or auto, got {address!r}"
            "; http://... is a job server, for `ray job submit`"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except socket.gaierror as error:
        raise InputError(
            f"--ray-address {address}: the host {host} is not known here: {error}; check its name"
        ) from error
    except (OverflowError, UnicodeError) as error:  # a port over 65535, a name that is no host's
        raise InputError(f"--ray-address {address}: expected HOST:PORT, got {error}") from error
    except OSError as error:
        reason = f"{error}; is it running, and is its port open from here?"
        raise _not_reached(address, reason) from error


def _check_machine(config: RunConfig) -> None:
    resources = resources_of(config, sys.maxsize)
    custom = config.custom_resources()
    if custom:
        raise InputError(
            f"--resources {config.resources}: only a cluster's machines have further resources; "
            "name the cluster with --ray-address"
        )
    asked = resources.total("GPU")
    if asked and asked > (gpus := _gpus()):  # counting them imports torch
        raise InputError(
            f"--gpus: {resources.actors} actors take {asked:g} GPUs, this machine "
            f"has {gpus}; ask for fewer, or name a cluster with --ray-address"
        )


def local_options(config: RunConfig, parts: int, folder: Path) -> dict[str, Any]:
    """What a local Ray is started with: room for all actors, and no more machine than there is."""
    resources = resources_of(config, parts)
    return {
        "num_cpus": int(resources.total("CPU")),
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
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def _errors_to_stderr() -> None:
    """Send to stderr what Ray's servers tell the driver, such as the death of an actor; Ray itself
    prints it on stdout, where our results are."""
    from ray._private import worker  # Ray 2.60 has no public way

    ray_internals: Any = worker
    told = ray_internals.print_to_stdstream
    if getattr(told, "func", None) is not _tell_on_stderr:  # once for a process
        ray_internals.print_to_stdstream = partial(_tell_on_stderr, told)


def _tell_on_stderr(told: Callable[..., None], data: dict[str, Any], ignore_prefix: bool) -> None:
    told({**data, "is_err": True}, ignore_prefix)


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
