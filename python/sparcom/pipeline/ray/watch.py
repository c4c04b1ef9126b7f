"""A thread that says why nothing happens: resources that lack, or parts that take long."""

import logging
import threading
import time

from sparcom.pipeline.ray.needs import Needs, lacking, shown

FIRST_SILENCE = 90.0  # a model loads, a first part is read
_logger = logging.getLogger("sparcom.pipeline")


class Watch:
    """Warns after `silence` seconds without a finished part, then after twice as long, and so on.

    >>> with Watch(needs) as watch:
    ...     for result in results:
    ...         watch.alive()
    """

    def __init__(self, needs: Needs, silence: float = FIRST_SILENCE) -> None:
        self._needs, self._first = needs, silence
        self._silence, self._since = silence, time.monotonic()
        self._finished = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sparcom-watch", daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def alive(self) -> None:
        """A part has finished."""
        self._since, self._silence = time.monotonic(), self._first
        self._finished += 1

    def _run(self) -> None:
        while not self._stop.wait(min(1.0, self._first / 4)):
            quiet = time.monotonic() - self._since
            if quiet > self._silence:
                self._silence *= 2
                _logger.warning(self.message(quiet), extra={"silent_s": round(quiet)})

    def message(self, quiet: float) -> str:
        """What to say after so many seconds without a finished part."""
        import ray

        try:
            machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            free = ray.available_resources()
        except Exception as error:  # a cluster that does not answer is what there is to say
            return f"no part has finished for {quiet:.0f} s; the cluster does not answer: {error}"
        lack = lacking(self._needs, machines, free)
        if lack:
            return f"waiting for resources: {lack}; add machines, or ask for less"
        each = " + ".join(shown(n, a) for piece in self._needs.bundles for n, a in piece.items())
        taken = ", ".join(shown(n, free.get(n, 0.0)) for n in self._needs.each)
        state = "the first part is under way or" if not self._finished else "parts take long, or"
        return (
            f"no part has finished for {quiet:.0f} s: {state} actors wait for their place (each "
            f"takes {each}; free now: {taken})"
        )
