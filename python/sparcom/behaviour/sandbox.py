"""Running code that a model wrote: without network, with limits, writing to a folder of its own.

A child in user, network and process namespaces of its own (`unshare`) limits its CPU time, memory
and files, confines its writing by Landlock (`confined.py`), and runs the program. It can read what
this user can read, but has nowhere to send it.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from sparcom.behaviour import confined
from sparcom.errors import InputError

SECONDS = 10
MEMORY = 1 << 30
_UNSHARE = ("unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")


@lru_cache(maxsize=1)
def why_not() -> str | None:
    """Why this machine cannot confine a program; None if it can."""
    if shutil.which("unshare") is None:
        return "unshare (util-linux) is not installed"
    tried = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"namespaces are not allowed: {tried.stderr.strip().splitlines()[-1:]}"
    version = confined.landlock_version()
    return (
        None if version >= 3 else f"Landlock is of version {version}, and 3 is needed (Linux 6.2)"
    )


def require() -> None:
    """Raise InputError if this machine cannot confine a program."""
    if (why := why_not()) is not None:
        raise InputError(f"run-code: {why}; leave it out, and CODE is not scored")


def passes(source: str, seconds: int = SECONDS, memory: int = MEMORY) -> bool:
    """True if a Python program runs to its end.

    seconds: of CPU time, and of wall time twice that. memory: bytes of address space.
    Raises InputError if this machine cannot confine it.
    """
    require()
    word = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="sparcom-code-") as folder:
        command = [*_UNSHARE, sys.executable, "-I", "-B", str(Path(confined.__file__)), folder]
        child = subprocess.Popen(
            [*command, str(seconds), str(memory)], stdin=subprocess.PIPE, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": folder, "TMPDIR": folder},
        )  # fmt: skip
        try:
            said, _ = child.communicate(f"{word}\n{source}", timeout=2 * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            return False
    return said.strip() == word
