"""Progress: a bar on a terminal, a structured line now and then elsewhere."""

import logging
import time

from tqdm import tqdm

from sparcom.pipeline.actor import PartResult

LOG_EVERY = 30.0
_logger = logging.getLogger("sparcom.pipeline")


class Progress:
    """Tokens per second, instructions per second, time left.

    total: prompt tokens of the parts that are not done.
    """

    def __init__(self, total: int, *, bar: bool) -> None:
        self._total, self._started = total, time.perf_counter()
        self._bar = tqdm(total=total, unit="tok", unit_scale=True, desc="count", disable=not bar)
        self._logged = self._started
        self.tokens = self.instructions = 0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, result: PartResult) -> None:
        """A part has finished."""
        self.tokens += result.tokens
        self.instructions += result.instructions + result.failed
        figures = self.figures(time.perf_counter() - self._started)
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
