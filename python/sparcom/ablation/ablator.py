"""Ablating components of a loaded engine, and measuring its losses on reference answers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from sparcom.ablation.how import NO_RESAMPLE, How, parse_how
from sparcom.ablation.resample import Donors
from sparcom.ablation.target import Target
from sparcom.components import ComponentSpace
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.base import Writer
from sparcom.errors import InputError, SparcomError

Answers = dict[str, torch.Tensor]
"""Prompt id -> [tokens, vocabulary] logits at the tokens before its counted ones."""


@dataclass(frozen=True)
class Prefix:
    """The outputs of the last of the first `layers` layers, by the ids of a pass's prompts."""

    layers: int
    outputs: dict[tuple[str, ...], Any]


@dataclass(frozen=True)
class Scores:
    """One entry for each prompt, a mean over its counted tokens; NaN if unknown.

    loss: negative log-likelihood, nats. kl: KL(whole model's distribution || this one's), nats.
    changed: share of tokens at which the most likely token is another than the whole model's.
    """

    loss: np.ndarray
    kl: np.ndarray
    changed: np.ndarray


class Ablator(ABC):
    """Measures losses of an engine with components ablated.

    engine: the loaded engine. how: a word of `how.parse_how` that names one way; "mean" needs
    `calibrate` first, "resample" `read_donors`.

    >>> ablator = TransformersAblator(engine, "zero")
    >>> whole = ablator.answers(prompts)
    >>> plain = ablator.scores(prompts)
    >>> with ablator.ablated(target):
    ...     scores = ablator.scores(prompts, whole)
    >>> effect = scores.loss - plain.loss
    """

    engine_name: str

    def __init__(self, engine: Any, how: str = "zero") -> None:
        found = parse_how(how, self.engine_name)
        if len(found) > 1:
            raise InputError(f"ablate: how: expected one factor, got {how!r}")
        self.engine, self.how = engine, found[0]
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

    def read_donors(self, donors: Donors, index: np.ndarray) -> None:
        """Read the instructions whose h takes the place of others' ("resample").

        index: [n] flat indices of neurons; any of their sites may then be ablated.
        Raises InputError if the engine cannot, or if it would take too much memory.
        """
        raise InputError(NO_RESAMPLE)

    @contextmanager
    def ablated(self, target: Target, how: How | None = None) -> Iterator[None]:
        """Within the block, the components of a target are ablated. how: None: the ablator's."""
        how = how or self.how
        if how.shift is not None:
            check_routable(target, self.engine.space, how)
            with self._routed(target.index, how.shift):
                yield
            return
        index, values = neurons_of(target, self.engine.space), None
        if how.kind == "resample":
            with self._resampled(index):
                yield
            return
        if how.kind == "mean":
            if self._means is None:
                raise SparcomError("ablate: the mean was asked for, but calibrate() has not run")
            values = self._means[index]
        self._ablate(index, values, how.factor or 0.0, how.sign)
        try:
            yield
        finally:
            self._ablate(np.zeros(0, np.int64), None, 0.0, 0)

    def scores(
        self,
        prompts: Sequence[Prompt],
        whole: Answers | None = None,
        prefix: Prefix | None = None,
    ) -> Scores:
        """How well the model predicts each prompt's counted tokens.

        prompts: of scope "response", so that these are the reference answer's, read after the
            prompt. whole: what `answers` of the whole model returned, to compare with.
        prefix: what `prefix` of the whole model returned for these prompts; nothing of the layers
            before it may be ablated.
        Raises SparcomError if a loss is not finite.
        """
        out = self._scores(prompts, whole, prefix)
        wrong = np.flatnonzero(~np.isfinite(out.loss))
        if len(wrong):
            raise SparcomError(f"ablate: the loss of {prompts[wrong[0]].id} is not finite")
        return out

    def losses(self, prompts: Sequence[Prompt]) -> np.ndarray:
        """[n] mean negative log-likelihood, nats per token (`scores`)."""
        return self.scores(prompts).loss

    def write(self, prompts: Sequence[Prompt], tokens: int) -> dict[str, tuple[int, ...]]:
        """Id -> token ids of the answer that the model writes after a prompt, greedily, `tokens` at
        most; without the token that ends it."""
        engine: Writer = self.engine
        return engine.generate([replace(one, counted=(), generate=tokens) for one in prompts])

    def answers(self, prompts: Sequence[Prompt]) -> Answers | None:
        """The model's distributions at each prompt's counted tokens; None if the engine does not
        show them."""
        return None

    def first_layer(self, target: Target) -> int:
        """The first layer that a target has a component in."""
        space = self.engine.space
        return int(space.neuron_layers[neurons_of(target, space)].min())

    def prefix(self, layer: int, prompts: Sequence[Prompt]) -> Prefix | None:
        """What the layers before `layer` put out for prompts, so that they are not computed again;
        None if the engine, or the model, has to compute them."""
        return None

    def bytes_of_answers(self, prompts: Sequence[Prompt]) -> int:
        """Bytes that `answers` takes; 0 if the engine does not show distributions."""
        return 0

    @abstractmethod
    def _ablate(
        self, index: np.ndarray, values: np.ndarray | None, factor: float, sign: int
    ) -> None:
        """In every later pass, h of these neurons and of no others becomes h * factor + values
        (None: 0); or, if sign is 1 or -1, 0 where the gate has this sign.

        index: [n] flat indices, sorted, each once.
        """

    def _resampled(self, index: np.ndarray) -> AbstractContextManager[None]:
        """Within the block, h of these neurons is that of the donors."""
        raise InputError(NO_RESAMPLE)

    @abstractmethod
    def _routed(self, index: np.ndarray, shift: float) -> AbstractContextManager[None]:
        """Within the block, `shift` is added to these experts' logits in their routers.

        index: [n] flat expert indices, sorted, each once.
        """

    @abstractmethod
    def _summing(self) -> AbstractContextManager[Callable[[], np.ndarray]]:
        """Within the block h is summed over counted tokens; yields what returns the [neurons]."""

    @abstractmethod
    def _scores(
        self, prompts: Sequence[Prompt], whole: Answers | None, prefix: Prefix | None
    ) -> Scores:
        """As `scores`; NaN if there is none."""


def check_routable(target: Target, space: ComponentSpace, how: How) -> None:
    """Raise InputError for components without a router, or if too few experts would be left."""
    if target.family != "experts":
        raise InputError(f"ablate: only experts have a router, for --how {how.name}; use --family "
                         "experts")  # fmt: skip
    for at, site in enumerate(space.sites):
        start, stop = space.expert_offsets[at : at + 2]
        inside = int(((target.index >= start) & (target.index < stop)).sum())
        if how.kind == "route" and inside and site.experts - inside < site.top_k:
            raise InputError(
                f"ablate: {site.name} has {site.experts} experts and each token takes "
                f"{site.top_k}: {inside} cannot be routed around"
            )


def neurons_of(target: Target, space: ComponentSpace) -> np.ndarray:
    """Flat neuron indices of a target; of experts, all their neurons."""
    if target.family == "neurons":
        return target.index
    return np.flatnonzero(np.isin(space.neuron_experts, target.index))
