"""The LAPE rule: components whose firing has low entropy over categories.

Language Activation Probability Entropy (arXiv 2402.16438), with categories in the place of
languages. It looks at summed counts, not at sets, and is a rule without a test: it always selects
its fraction. `contrast.py` says which components are specific beyond chance.
"""

from dataclasses import dataclass

import numpy as np

from sparcom.errors import InputError


@dataclass(frozen=True)
class LapeRule:
    """filter: a component counts only if its probability in some category exceeds this quantile of
    all probabilities; top: fraction with the lowest entropy that is selected; bar: quantile that a
    category's probability must exceed for the component to be that category's."""

    filter: float = 0.95
    top: float = 0.01
    bar: float = 0.95

    def __post_init__(self) -> None:
        for name in ("filter", "top", "bar"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(
                    f"LAPE {name}: expected a fraction over 0 and at most 1, got "
                    f"{getattr(self, name)}"
                )


@dataclass(frozen=True, kw_only=True)
class Lape:
    """entropy: [components] of the normalised probabilities, natural log; inf where dismissed.
    selected: [C, components] bool, the components of each category."""

    entropy: np.ndarray
    selected: np.ndarray


def lape(counts: np.ndarray, tokens: np.ndarray, rule: LapeRule | None = None) -> Lape:
    """Select by activation-probability entropy, over all layers and categories together.

    counts: [C, components] summed counts of each category; tokens: [C] summed T.
    P = counts / tokens. With k = round(quantile x size) the k-th smallest P over everything is the
    value of a quantile. Entropies equal to 12 decimals are ties, taken in the order of the index.
    Raises InputError if a category has no counted tokens, or there are fewer than two.

    >>> lape(np.array([[9, 1], [0, 1]]), np.array([10, 10]), LapeRule(0.5, 0.5, 0.5)).selected
    array([[ True, False],
           [False, False]])
    """
    rule = rule or LapeRule()
    if len(counts) < 2 or (np.asarray(tokens) <= 0).any():
        raise InputError(
            f"LAPE: needs two categories or more with counted tokens, got tokens {list(tokens)}"
        )
    p = counts / np.asarray(tokens, np.float64)[:, None]
    filter_value, bar_value = _quantile(p, rule.filter), _quantile(p, rule.bar)
    entropy = probability_entropy(p)
    entropy[~(p > filter_value).any(0)] = np.inf
    order = np.argsort(np.round(entropy, 12), kind="stable")[: round(len(entropy) * rule.top)]
    chosen = np.zeros(len(entropy), bool)
    chosen[order[np.isfinite(entropy[order])]] = True
    return Lape(entropy=entropy, selected=(p > bar_value) & chosen)


def probability_entropy(p: np.ndarray) -> np.ndarray:
    """[components] -sum_c s_c log s_c, s = p / sum_c p, for p [C, components]."""
    total = p.sum(0)
    share = np.divide(p, total, out=np.zeros_like(p), where=total > 0)
    return -(share * np.log(np.where(share > 0, share, 1.0))).sum(0)


def _quantile(p: np.ndarray, fraction: float) -> float:
    """The round(fraction x size)-th smallest value of p (at least the first)."""
    flat = p.reshape(-1)
    at = max(round(len(flat) * fraction), 1) - 1
    return float(np.partition(flat, at)[at])
