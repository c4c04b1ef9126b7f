"""Notices that a process of the local Ray has died, before Ray ends this one without a word.

If its raylet or its control store (gcs_server) is gone, Ray logs for up to a minute and then exits
the driver in C++ code, so that no exception reaches us (seen with Ray 2.60).
"""

import os
import signal
import threading
from collections.abc import Sequence

import psutil

EVERY = 0.5  # seconds
_SERVERS = ("raylet", "gcs_server")


class LocalRayGuard:
    """Watches the servers of the local Ray that this process has started.

    died: which of them has ended, "" while all run. The main thread is then interrupted as by
    SIGTERM, whose handler runs as soon as Python code does.
    """

    def __init__(self, every: float = EVERY) -> None:
        self.died = ""
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sparcom-ray-guard", daemon=True)
        self._processes: Sequence[psutil.Process] = ()
        self._servers: dict[psutil.Process, str] = {}

    def __enter__(self) -> "LocalRayGuard":
        self._processes = psutil.Process().children(recursive=True)
        for process in self._processes:
            name = process.name()
            if name in _SERVERS:
                self._servers[process] = name
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def kill_rest(self) -> None:
        """Kill what is left of a Ray that has lost a server and cannot be shut down in order."""
        left = [p for p in psutil.Process().children(recursive=True) if p.is_running()]
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=10)

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            for process, name in self._servers.items():
                if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                    self.died = name
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
