"""Ablating components of a loaded engine, and measuring its losses on reference answers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np

from sparcom.ablation.target import Target
from sparcom.components import ComponentSpace
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.base import Engine
from sparcom.errors import InputError, SparcomError

HOW = {"transformers": ("zero", "mean", "route"), "vllm": ("zero", "mean")}
"""How each engine can ablate."""


class Ablator(ABC):
    """Measures losses of an engine with components ablated.

    engine: the loaded engine. how: one of `HOW` of it; "mean" needs `calibrate` first.

    >>> ablator = TransformersAblator(engine, "zero")
    >>> plain = ablator.losses(prompts)
    >>> with ablator.ablated(target):
    ...     effect = ablator.losses(prompts) - plain
    """

    engine_name: str

    def __init__(self, engine: Engine, how: str = "zero") -> None:
        check_how(self.engine_name, how)
        self.engine, self.how = engine, how
        self._means: np.ndarray | None = None

    def calibrate(self, prompts: Sequence[Prompt]) -> np.ndarray:
        """[neurons] float64: mean of each neuron's h over the counted tokens that reach it; 0 if
        none does."""
        space = self.engine.space
        seen = [np.zeros(site.bins) for site in space.sites]
        with self._summing() as sums:
            for counted in self.engine.count(prompts):
                for at, site in enumerate(space.sites):
                    start, stop = space.expert_offsets[at : at + 2]
                    seen[at] += counted.experts[:, start:stop].sum(0) if site.experts else (
                        counted.tokens.sum()
                    )  # fmt: skip
            total = sums()
        rows = [np.repeat(n, site.width) for n, site in zip(seen, space.sites, strict=True)]
        self._means = total / np.maximum(np.concatenate(rows), 1)
        return self._means

    @contextmanager
    def ablated(self, target: Target) -> Iterator[None]:
        """Within the block, the components of a target are ablated."""
        index, values = neurons_of(target, self.engine.space), None
        if self.how == "mean":
            if self._means is None:
                raise SparcomError("ablate: the mean was asked for, but calibrate() has not run")
            values = self._means[index]
        self._ablate(index, values)
        try:
            yield
        finally:
            self._ablate(np.zeros(0, np.int64), None)

    def losses(self, prompts: Sequence[Prompt]) -> np.ndarray:
        """[n] mean negative log-likelihood, in nats per token, of each prompt's counted tokens.

        prompts: of scope "response", so that these are the reference answer's, read after the
        prompt. Raises SparcomError if a loss is not finite.
        """
        out = self._losses(prompts)
        wrong = np.flatnonzero(~np.isfinite(out))
        if len(wrong):
            raise SparcomError(f"ablate: the loss of {prompts[wrong[0]].id} is not finite")
        return out

    @abstractmethod
    def _ablate(self, index: np.ndarray, values: np.ndarray | None) -> None:
        """In every later pass, h of these neurons and of no others is `values` (None: 0).

        index: [n] flat indices, sorted, each once.
        """

    @abstractmethod
    def _summing(self) -> AbstractContextManager[Callable[[], np.ndarray]]:
        """Within the block h is summed over counted tokens; yields what returns the [neurons]."""

    @abstractmethod
    def _losses(self, prompts: Sequence[Prompt]) -> np.ndarray:
        """As `losses`; NaN if there is none."""


def check_how(engine: str, how: str) -> None:
    """Raise InputError if an engine cannot ablate in this way."""
    if engine not in HOW:
        raise InputError(f"ablate: engine: expected {', '.join(HOW)}, got {engine!r}")
    known = HOW["transformers"]
    if how not in known:
        raise InputError(f"ablate: how: expected {', '.join(known)}, got {how!r}")
    if how not in HOW[engine]:
        raise InputError(
            f"ablate: the {engine} engine cannot ablate by {how}; use the transformers engine"
        )


def neurons_of(target: Target, space: ComponentSpace) -> np.ndarray:
    """Flat neuron indices of a target; of experts, all their neurons."""
    if target.family == "neurons":
        return target.index
    return np.flatnonzero(np.isin(space.neuron_experts, target.index))
