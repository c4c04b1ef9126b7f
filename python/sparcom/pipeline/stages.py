"""The stages of a run, said as they begin: lines on a terminal, events in a structured log."""

import logging
import sys
import time

_logger = logging.getLogger("sparcom.pipeline")


class Stages:
    """Says what a run is doing now, and how long after its start.

    shown: write a line to stderr for each stage (on a terminal).

    >>> begin = Stages(shown=True)
    >>> begin("reading the corpus")
    """

    def __init__(self, *, shown: bool) -> None:
        self._shown, self._started = shown, time.perf_counter()
        self.begun: list[str] = []

    def __call__(self, name: str) -> None:
        """A stage begins."""
        self.begun.append(name)
        seconds = time.perf_counter() - self._started
        _logger.info("stage", extra={"stage": name, "after_s": round(seconds, 2)})
        if self._shown:
            print(f"{seconds:6.1f} s  {name}", file=sys.stderr, flush=True)
