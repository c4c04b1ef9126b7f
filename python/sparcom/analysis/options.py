"""What an analysis is asked to do: every default in one place."""

from dataclasses import dataclass, field

from sparcom.analysis.components.lape import LapeRule
from sparcom.errors import InputError

MOST_DRAWS = 1_000_000
"""More would take days, or more memory than there is."""
MOST_EXAMPLES = 100
"""The page shows no more of a unit."""


@dataclass(frozen=True)
class AnalysisOptions:
    """Options of `analyse` and `compare`.

    alpha: false discovery rate of the component tests.
    high, low: prevalence bounds of general and unique components.
    least_difference: a specific component exceeds every other category's c / T by more than this.
    always_on: a component that fires on this share of tokens or more is always on.
    baseline: a run of the same model on plain text, for always-on; "": every category of the run.
    permutations, bootstraps: draws of the nulls and intervals of whole-family figures.
    small_draws: draws of what is repeated per layer, split in halves, or adjusted for strata.
    pair_limit: up to so many instructions all pairs are taken; beyond, those of a random sample
        of `pair_sample` instructions, evenly over categories.
    examples: instructions that are stored as text examples of a unit; 0: none.
    lape: the LAPE rule.
    seed: of every draw: the same run gives the same figures.
    """

    alpha: float = 0.05
    high: float = 0.5
    low: float = 0.1
    least_difference: float = 0.1
    always_on: float = 0.95
    baseline: str = ""
    permutations: int = 1000
    bootstraps: int = 1000
    small_draws: int = 200
    pair_limit: int = 4000
    pair_sample: int = 2000
    examples: int = 5
    lape: LapeRule = field(default_factory=LapeRule)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("alpha", "always_on"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name}: expected between 0 and 1, got {getattr(self, name)}")
        if not 0 <= self.least_difference < 1:
            raise InputError(
                f"least_difference: expected 0 <= difference < 1, got {self.least_difference}"
            )
        if not 0 <= self.low < self.high <= 1:
            raise InputError(
                f"low, high: expected 0 <= low < high <= 1, got {self.low}, {self.high}"
            )
        for name in ("permutations", "bootstraps", "small_draws", "pair_sample"):
            if not 1 <= getattr(self, name) <= MOST_DRAWS:
                raise InputError(
                    f"{name}: must be from 1 to {MOST_DRAWS}, got {getattr(self, name):.6g}"
                )
        if not 0 <= self.examples <= MOST_EXAMPLES:
            raise InputError(
                f"examples: must be from 0 to {MOST_EXAMPLES}, got {self.examples:.6g}"
            )
        if not 0 <= self.seed < 1 << 32:
            raise InputError(f"seed: must be from 0 to 2^32 - 1, got {self.seed:.6g}")
