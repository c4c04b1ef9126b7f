"""Scoring prompts with targets ablated, each half with the edition found on the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparcom.ablation.ablator import Ablator, Prefix
from sparcom.ablation.how import How
from sparcom.ablation.target import Target
from sparcom.corpus.prompts.prompts import Prompt

Editions = tuple[Target, Target]
"""What is ablated while the first and the second half are scored."""

MOST_LOGITS = 1 << 31
"""Bytes of the whole model's logits that are kept to compare with."""


@dataclass(frozen=True)
class Effects:
    """What an ablation changed, one entry for each instruction; NaN if unknown.

    loss: nats per answer token, with the target ablated less without. kl, changed: as of `Scores`.
    """

    loss: np.ndarray
    kl: np.ndarray
    changed: np.ndarray


Prefixes = tuple[Prefix | None, Prefix | None]
"""What is not computed again for the first and the second half."""


class Scorer:
    """Scores instructions with sets of components ablated.

    prompts: of scope "response". half: [n] of each, 0 or 1.
    loss: [n] of the whole model. warnings: what is not measured, and why.
    """

    def __init__(self, ablator: Ablator, prompts: Sequence[Prompt], half: np.ndarray) -> None:
        self._ablator = ablator
        self._rows = [np.flatnonzero(half == h) for h in (0, 1)]
        self._prompts = [[prompts[row] for row in rows] for rows in self._rows]
        self.loss = np.zeros(len(prompts))
        for rows, some in zip(self._rows, self._prompts, strict=True):
            self.loss[rows] = ablator.scores(some).loss
        self.warnings: list[str] = []
        self._answers = None
        needed = ablator.bytes_of_answers(prompts)
        if needed > MOST_LOGITS:
            self.warnings.append(
                f"KL is not measured: the whole model's logits take {needed / 1e9:.1f} GB, more "
                f"than {MOST_LOGITS / 1e9:.1f}; take a smaller --limit or --answer-tokens"
            )
        else:
            self._answers = ablator.answers(prompts)

    def prefixes(self, editions: Editions) -> Prefixes:
        """What the layers before each edition's first component put out: it need not be computed
        again for any set of the same layers."""
        first, second = (
            self._ablator.prefix(self._ablator.first_layer(target), prompts)
            for target, prompts in zip(editions, self._prompts, strict=True)
        )
        return first, second

    def effects(
        self, editions: Editions, prefixes: Prefixes = (None, None), how: How | None = None
    ) -> Effects:
        """The effects of one set, in its two editions. how: None: the ablator's."""
        out = Effects(*(np.full(len(self.loss), np.nan) for _ in range(3)))
        for h, target in enumerate(editions):
            rows, prompts = self._rows[h], self._prompts[h]
            with self._ablator.ablated(target, how):
                scores = self._ablator.scores(prompts, self._answers, prefixes[h])
            out.loss[rows] = scores.loss - self.loss[rows]
            out.kl[rows], out.changed[rows] = scores.kl, scores.changed
        return out


def stacked(draws: Sequence[Effects], size: int) -> Effects:
    """[sets, size] of each: the effects of many sets."""
    return Effects(*(
        np.array([getattr(one, name) for one in draws]).reshape(len(draws), size)
        for name in ("loss", "kl", "changed")
    ))  # fmt: skip
