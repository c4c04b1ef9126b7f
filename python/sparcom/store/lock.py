"""One driver per run directory, on any file system, surviving drivers that are killed.

A driver writes a claim into `lock/`, then lists the folder: where it sees the living claim of
another, it withdraws its own. Of two drivers that start at once, at least the later writer sees
the other's claim, so that never both go on. A claim is refreshed every `BEAT` seconds; one that is
older than `EXPIRY` (by the file system's clock, the same for both) is dead, and so is one of this
machine whose process is gone.
"""

import json
import os
import random
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass

import psutil

from sparcom.errors import InputError, SparcomError
from sparcom.store.files import Files

FOLDER = "lock"
BEAT = 10.0
EXPIRY = 60.0
_TRIES = 4


@dataclass(frozen=True)
class Claim:
    """Who holds a run. born: when its process started, so that a reused pid is told apart."""

    host: str
    space: str
    pid: int
    born: float
    since: str

    @classmethod
    def mine(cls) -> "Claim":
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        born = psutil.Process().create_time()
        return cls(socket.gethostname(), _pid_space(), os.getpid(), born, since)

    def gone(self) -> bool:
        """Whether it is of this machine and its process has ended."""
        if (self.host, self.space) != (socket.gethostname(), _pid_space()):
            return False
        try:
            return abs(psutil.Process(self.pid).create_time() - self.born) > 1
        except psutil.NoSuchProcess:
            return True


class RunLock:
    """Holds a run directory for the length of a `with` block.

    >>> with RunLock(store.files) as lock:
    ...     lock.check()

    Raises InputError where another driver holds it.
    """

    def __init__(self, files: Files, *, beat: float = BEAT, expiry: float = EXPIRY) -> None:
        self._files, self._beat, self._expiry = files, beat, expiry
        self._name = f"{FOLDER}/{uuid.uuid4().hex}.json"
        self._text = json.dumps(asdict(Claim.mine())).encode()
        self._stop = threading.Event()
        self._beaten = 0.0
        self._lost = ""
        self._thread = threading.Thread(target=self._keep, name="sparcom-lock", daemon=True)

    def __enter__(self) -> "RunLock":
        for turn in range(_TRIES):
            self._files.write_bytes(self._name, self._text)
            self._beaten = time.monotonic()
            other = self._other()
            if other is None:
                self._thread.start()
                return self
            self._withdraw()
            if turn + 1 < _TRIES:  # the other may be withdrawing for the same reason
                time.sleep(random.uniform(0.05, 0.4))
        raise InputError(other)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(SparcomError):  # it expires, and what has ended the block is what counts
            self._withdraw()

    def check(self) -> None:
        """Raise SparcomError where the hold was lost: another driver may have taken over."""
        if self._lost:
            raise SparcomError(f"{self._files.location}: {self._lost}; --resume finishes the run")

    def _other(self) -> str | None:
        """What to say of the living claim of another driver; dead claims are removed."""
        now = self._files.modified(self._name)
        for base in self._files.names(FOLDER):
            name = f"{FOLDER}/{base}"
            if name == self._name or not name.endswith(".json"):
                continue
            written = self._files.modified(name)
            if written is None:
                continue
            age = (now - written).total_seconds() if now else 0.0
            claim = self._read(name)
            if age > self._expiry or (claim and claim.gone()):
                self._files.delete(name)
                continue
            return self._refusal(claim, age)
        return None

    def _read(self, name: str) -> Claim | None:
        try:
            return Claim(**json.loads(self._files.read_bytes(name)))
        except (SparcomError, ValueError, TypeError):  # just withdrawn, or half an upload
            return None

    def _refusal(self, claim: Claim | None, age: float) -> str:
        who = f"process {claim.pid} on {claim.host}, since {claim.since}" if claim else "someone"
        return (
            f"{self._files.location}: another driver holds this run ({who}; last sign of life "
            f"{max(age, 0):.0f} s ago); wait for it, give another --out, or, if it is dead, try "
            f"again in {max(self._expiry - age, 1):.0f} s"
        )

    def _keep(self) -> None:
        while not self._stop.wait(self._beat):
            try:
                if not self._files.is_file(self._name):
                    self._lost = "the hold on this run was taken away (its lock file is gone)"
                    return
                self._files.write_bytes(self._name, self._text)
                self._beaten = time.monotonic()
            except SparcomError as error:
                if time.monotonic() - self._beaten > self._expiry:
                    self._lost = f"the hold on this run could not be kept ({error})"
                    return

    def _withdraw(self) -> None:
        self._files.delete(self._name)
        self._files.delete_if_empty(FOLDER)
        self._files.delete_if_empty()


def _pid_space() -> str:
    """Names the processes that a pid is one of: containers of one host may share its name."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
