"""Ray's custom metrics of an actor; they do nothing where no Ray runs."""

from typing import Any

from sparcom.errors import CountError, SparcomError


class Metrics:
    """What an actor has counted, has set aside, and holds; verify failures; tagged by run."""

    def __init__(self, run_id: str) -> None:
        import ray
        from ray.util.metrics import Counter, Gauge

        self._on = ray.is_initialized()
        if not self._on:
            return
        tags = {"run": run_id}

        def made(kind: type, name: str, text: str) -> Any:
            metric = kind(f"sparcom_{name}", description=text, tag_keys=("run",))
            metric.set_default_tags(tags)
            return metric

        self._tokens = made(Counter, "tokens_counted", "Tokens counted and stored")
        self._instructions = made(Counter, "instructions_counted", "Instructions counted")
        self._failed = made(Counter, "instructions_failed", "Instructions set aside")
        self._verify = made(Counter, "verify_failures", "Counts not conserved or not reproduced")
        self._under_way = made(
            Gauge, "instructions_under_way", "Given to the engine and not yet counted"
        )

    def counted(self, tokens: int, instructions: int, failed: int) -> None:
        """A part was stored."""
        if self._on:
            for metric, value in (
                (self._tokens, tokens),
                (self._instructions, instructions),
                (self._failed, failed),
            ):
                if value:
                    metric.inc(value)

    def failed(self, error: SparcomError) -> None:
        """An error stopped a part."""
        if self._on and isinstance(error, CountError):
            self._verify.inc()

    def under_way(self, instructions: int) -> None:
        """So many instructions were given to the engine and are not yet counted."""
        if self._on:
            self._under_way.set(instructions)
