"""Progress: a bar on a terminal, a structured line now and then elsewhere."""

import logging
import threading
import time

from tqdm import tqdm

from sparcom.pipeline.actor import PartResult

LOG_EVERY = 30.0
_logger = logging.getLogger("sparcom.pipeline")


TICK = 1.0
"""Seconds after which the bar's clock moves on, though no part has finished."""


class Progress:
    """Instructions done, tokens per second, time left.

    total: prompt tokens of the parts that are not done; instructions: of these parts.
    """

    def __init__(self, total: int, instructions: int, *, bar: bool) -> None:
        self._total, self._instructions = total, instructions
        self._started = time.perf_counter()
        # What there is to see until the first part is done.
        self._bar = tqdm(
            total=total, unit="tok", unit_scale=True, desc="loading the model", disable=not bar
        )
        self._logged = self._started
        self._ended = threading.Event()
        self._ticks = threading.Thread(target=self._tick, name="sparcom-progress", daemon=True)
        self.tokens = self.instructions = 0

    def __enter__(self) -> "Progress":
        if not self._bar.disable:
            self._ticks.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._ticks.is_alive():
            self._ticks.join()
        self._bar.close()

    def _tick(self) -> None:
        while not self._ended.wait(TICK):
            self._bar.refresh()

    def add(self, result: PartResult) -> None:
        """A part has finished."""
        self.tokens += result.tokens
        self.instructions += result.instructions + result.failed
        figures = self.figures(time.perf_counter() - self._started)
        self._bar.set_description_str(
            f"counting {self.instructions} of {self._instructions}", refresh=False
        )
        self._bar.set_postfix_str(f"{figures['instructions_per_s']:.1f} instr/s", refresh=False)
        self._bar.update(result.tokens)
        if time.perf_counter() - self._logged > LOG_EVERY:
            self._logged = time.perf_counter()
            _logger.info("progress", extra=figures)

    def figures(self, seconds: float) -> dict[str, float]:
        """What is said after so many seconds."""
        rate = self.tokens / seconds if seconds else 0.0
        return {
            "tokens": self.tokens,
            "instructions": self.instructions,
            "share": round(self.tokens / self._total, 4) if self._total else 1.0,
            "tokens_per_s": round(rate, 1),
            "instructions_per_s": round(self.instructions / seconds, 2) if seconds else 0.0,
            "eta_s": round((self._total - self.tokens) / rate) if rate else -1,
        }
