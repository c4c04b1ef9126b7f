"""Ablating components of a running vLLM engine, and its losses on reference answers.

Every worker's kernel reads `keep` and `fill` at one address, compiled or not; what they hold is
exchanged between passes. Losses are vLLM's own log-probabilities of the prompt's tokens; it
does not show whole distributions.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np

from sparcom.ablation.ablator import Ablator, Answers, Prefix, Scores
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.vllm.engine import VllmEngine


class VllmAblator(Ablator):
    """Ablates components of a vLLM engine that was loaded with `ablation=True`."""

    engine: VllmEngine
    engine_name = "vllm"

    def _ablate(
        self, index: np.ndarray, values: np.ndarray | None, factor: float, sign: int
    ) -> None:
        self.engine.ablate(index, values, factor, sign)

    @contextmanager
    def _routed(self, index: np.ndarray, shift: float) -> Iterator[None]:
        self.engine.route(index, shift)
        try:
            yield
        finally:
            self.engine.route(np.zeros(0, np.int64), 0.0)

    def _summing(self) -> AbstractContextManager[Callable[[], np.ndarray]]:
        return self.engine.summing()

    def _scores(
        self, prompts: Sequence[Prompt], whole: Answers | None, prefix: Prefix | None
    ) -> Scores:
        unknown = np.full(len(prompts), np.nan)
        return Scores(self.engine.losses(prompts), unknown, unknown)
