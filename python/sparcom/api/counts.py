"""Counts of some instructions in memory, and the sets that a rule selects from them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparcom.components import ComponentSpace
from sparcom.counting.counted import Counted
from sparcom.counting.magnitudes import Magnitudes
from sparcom.counting.signs import combinations
from sparcom.errors import InputError
from sparcom.selection.lift import baseline_of
from sparcom.selection.rules import Selection, identify
from sparcom.selection.sets import Sets

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How often each neuron fired, and each routed expert was chosen, on each instruction.

    ids: [n]; tokens: [n] int64, T, the counted tokens.
    neurons: [n, neurons] int32, c; experts: [n, experts] int32, r; flat indices of `space`.
    signs: [2, n, neurons] int32, how often up was positive, and gate and up both; None if they were
        not counted (`Model(..., signs=True)`).
    magnitudes: sums of h, |h| and the maximum of h of every neuron; of router weights and output
        norms of every expert; None if not asked for (`Model(..., magnitudes=True)`).
    """

    ids: tuple[str, ...]
    tokens: np.ndarray
    neurons: np.ndarray
    experts: np.ndarray
    space: ComponentSpace
    signs: np.ndarray | None = None
    magnitudes: Magnitudes | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def frequencies(self) -> np.ndarray:
        """[n, neurons] float32: p = c / T; NaN where no token was counted."""
        return frequencies(self.neurons, self.tokens)

    def expert_frequencies(self) -> np.ndarray:
        """[n, experts] float32: f = r / T; NaN where no token was counted."""
        return frequencies(self.experts, self.tokens)

    def sign_frequencies(self) -> np.ndarray:
        """[4, n, neurons] float32: share of T with each of `counting.signs.COMBINATIONS`: both gate
        and up positive, gate only, up only, neither. At routed sites they add up to f, not to 1.

        NaN where no token was counted. Raises InputError if signs were not counted.
        """
        if self.signs is None:
            raise InputError(
                "sign_frequencies: signs were not counted; load with Model(..., signs=True)"
            )
        counts = combinations(self.space, self.tokens, self.neurons, self.experts, self.signs)
        return np.stack([frequencies(one, self.tokens) for one in counts])

    def to_pandas(self) -> "pd.DataFrame":
        """Frequencies as a DataFrame: a row per instruction; columns layer, kind, expert, unit.

        The column index is a MultiIndex; expert is -1 outside routed sites.
        """
        import pandas as pd

        described = [self.space.describe_neuron(i) for i in range(self.space.neurons)]
        names = ("layer", "kind", "expert", "unit")
        columns = pd.MultiIndex.from_tuples(described, names=names)
        return pd.DataFrame(self.frequencies(), index=list(self.ids), columns=columns)


def frequencies(counts: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """[n, components] float32: counts [n, components] over tokens [n]; NaN where tokens is 0."""
    total = np.asarray(tokens, np.float32)[:, None]
    out = np.full(counts.shape, np.nan, np.float32)
    np.divide(counts, total, out=out, where=total > 0)
    return out


def select(
    counts: Counts,
    rule: str = Selection.rule,
    *,
    expert_rule: str = Selection.expert_rule,
    ties: str = Selection.ties,
    pool: bool = Selection.pool,
) -> Sets:
    """The instruction-specific neurons (ISN) and experts (ISE) of counted instructions.

    rule: top:F, per-layer:F, fixed:F, or lift:F, over all of these instructions; expert_rule: the
    same, or lift:X over uniform routing.
    ties: inclusive, exclusive or exact; pool: rank the neurons of all kinds of site together.
    Raises InputError for a rule that is not known. Source: arXiv 2505.21191.

    >>> sets = select(model.count(["What is 17 * 23?"]), rule="top:0.01")
    >>> sets.indices(0), sets.table()
    """
    counted = Counted(counts.ids, counts.tokens, counts.neurons, counts.experts)
    selection = Selection(rule, expert_rule, ties, pool)
    if selection.baseline:
        raise InputError(f"rule {rule}: a stored baseline is of sparcom identify; leave it out")
    baseline = baseline_of(counted.neurons, counted.tokens) if selection.lifts else None
    return identify(counted, counts.space, selection, baseline)
