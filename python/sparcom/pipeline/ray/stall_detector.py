"""A thread that says why nothing happens: resources that lack, or parts that take long."""

import logging
import threading
import time

from sparcom.pipeline.ray.resources import Resources, format_amount, missing_resources

FIRST_TIMEOUT = 90.0  # a model loads, a first part is read
_logger = logging.getLogger("sparcom.pipeline")


class StallDetector:
    """Warns after `timeout` seconds without a finished part, then after twice as long, and so on.

    >>> with StallDetector(resources) as detector:
    ...     for result in results:
    ...         detector.alive()
    """

    def __init__(self, resources: Resources, timeout: float = FIRST_TIMEOUT) -> None:
        self._resources, self._first = resources, timeout
        self._timeout, self._since = timeout, time.monotonic()
        self._finished = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sparcom-stalls", daemon=True)

    def __enter__(self) -> "StallDetector":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def alive(self) -> None:
        """A part has finished."""
        self._since, self._timeout = time.monotonic(), self._first
        self._finished += 1

    def _run(self) -> None:
        while not self._stop.wait(min(1.0, self._first / 4)):
            quiet = time.monotonic() - self._since
            if quiet > self._timeout:
                self._timeout *= 2
                _logger.warning(self.message(quiet), extra={"silent_s": round(quiet)})

    def message(self, quiet: float) -> str:
        """What to say after so many seconds without a finished part."""
        import ray

        try:
            machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            free = ray.available_resources()
        except Exception as error:  # a cluster that does not answer is what there is to say
            return f"no part has finished for {quiet:.0f} s; the cluster does not answer: {error}"
        lack = missing_resources(self._resources, machines, free)
        if lack:
            return f"waiting for resources: {lack}; add machines, or ask for less"
        each = " + ".join(
            format_amount(n, a) for piece in self._resources.bundles for n, a in piece.items()
        )
        taken = ", ".join(format_amount(n, free.get(n, 0.0)) for n in self._resources.each)
        state = "the first part is under way or" if not self._finished else "parts take long, or"
        return (
            f"no part has finished for {quiet:.0f} s: {state} actors wait for their place (each "
            f"takes {each}; free now: {taken})"
        )
