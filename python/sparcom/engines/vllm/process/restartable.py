"""What runs in processes, and starts again after it died: a vLLM engine, a group of shards."""

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from sparcom.errors import SparcomError


class Running(Protocol):
    """One life of it, from its start to its end."""

    @property
    def error(self) -> BaseException | None:
        """Why it died; None as long as it runs."""
        ...

    def close(self) -> None:
        """End its processes; may be called again."""
        ...


Life = TypeVar("Life", bound=Running)


class Restartable(Generic[Life]):
    """Starts something, starts it again after it died, a bounded number of times, and closes it.

    name: what messages call it.
    start: begins a new life; leaves no process behind if it raises.
    restarts: how often it starts again without a result in between.
    current: the running one; after a death the dead one, until it starts again.
    Raises what `start` raises.

    >>> engine = Restartable("engine", start_engine, restarts=10)
    >>> engine.running().submit(prompts)
    >>> engine.delivered()
    >>> engine.close()
    """

    def __init__(self, name: str, start: Callable[[], Life], restarts: int) -> None:
        self._name, self._start = name, start
        self._allowed = self._left = restarts
        self._lock = threading.Lock()
        self._closed = False
        self.current = start()

    def running(self) -> Life:
        """The running one; one that died is started again.

        Raises SparcomError if it is closed or has died too often, or what `start` raises.
        """
        with self._lock:
            self._require_open()
            if (error := self.current.error) is not None:
                if not self._left:
                    # No PromptError: the ids of the last one are others' instructions.
                    raise SparcomError(
                        f"this {self._name} was started again as often as allowed ({self._allowed} "
                        f"times) without a result; the last time: {error}"
                    ) from error
                self._left -= 1
                self.current.close()
                self.current = self._start()
            return self.current

    def alive(self) -> Life | None:
        """The running one, None if it died; raises SparcomError if it is closed."""
        self._require_open()
        return self.current if self.current.error is None else None

    def delivered(self) -> None:
        """There was a result: it may die as often again."""
        self._left = self._allowed

    def close(self) -> None:
        """End it for good; waits for a start under way."""
        with self._lock:
            self._closed = True
            self.current.close()

    def _require_open(self) -> None:
        if self._closed:
            raise SparcomError(f"this {self._name} is closed")
