"""Each half is scored with the edition that was found on the other."""

from contextlib import contextmanager

import numpy as np
import pytest

from sparcom.ablation import scoring
from sparcom.ablation.ablator import Scores
from sparcom.ablation.scoring import Scorer, stacked
from sparcom.ablation.target import CrossTarget, Target
from sparcom.corpus.prompts.prompts import Prompt

PROMPTS = [Prompt(str(k), (1, 2, 3), ((2, 3),)) for k in range(5)]
HALF = np.array([0, 1, 1, 0, 1])


class Fake:
    """An ablator whose loss is the prompt's number, and 100 for each component ablated."""

    def __init__(self) -> None:
        self.now: Target | None = None
        self.kept = 0

    @contextmanager
    def ablated(self, target: Target, how=None):
        self.now = target
        yield
        self.now = None

    def scores(self, prompts, whole=None, prefix=None) -> Scores:
        added = 0 if self.now is None else 100 * len(self.now.index)
        loss = np.array([float(prompt.id) for prompt in prompts]) + added
        known = np.full(len(prompts), np.nan if whole is None else added / 1000)
        return Scores(loss, known, known)

    def answers(self, prompts):
        self.kept = len(prompts)
        return {}

    def bytes_of_answers(self, prompts) -> int:
        return 10 * len(prompts)


def targets() -> CrossTarget:
    first, second = (Target("t", "neurons", np.arange(size)) for size in (1, 2))
    return CrossTarget("t", "neurons", "A", (first, second))


def test_halves_and_editions_cross() -> None:
    target = targets()
    scorer = Scorer(Fake(), PROMPTS, HALF)
    assert scorer.loss.tolist() == [0, 1, 2, 3, 4]
    found = scorer.effects((target.scored_on(0), target.scored_on(1)))
    assert found.loss.tolist() == [200, 100, 100, 200, 100]  # the first half: with the second's
    assert found.kl.tolist() == [0.2, 0.1, 0.1, 0.2, 0.1]
    both = stacked([found, found], 5)
    assert both.loss.shape == both.kl.shape == (2, 5)
    assert stacked([], 5).loss.shape == (0, 5)


def test_kl_is_left_out_where_the_logits_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "MOST_LOGITS", 49)
    fake = Fake()
    scorer = Scorer(fake, PROMPTS, HALF)
    assert fake.kept == 0
    assert "KL is not measured" in scorer.warnings[0]
    target = targets()
    assert np.isnan(scorer.effects(target.found).kl).all()
