"""What an ablation is asked to do."""

from dataclasses import dataclass

from sparcom.ablation.ablator import check_how
from sparcom.errors import InputError


@dataclass(frozen=True)
class AblationOptions:
    """Options of `ablate`.

    targets: words of `target.targets`. family: "neurons" | "experts". how: one of `ablator.HOW`.
    draws: matched random sets for each target. limit: instructions of each category; None: all.
    high, low: bounds of general and unique.
    engine: a key of `ablator.HOW`, whichever engine counted. threads: of it (of each of its
        workers); None: all cores.
    """

    targets: tuple[str, ...] = ("general",)
    family: str = "neurons"
    how: str = "zero"
    draws: int = 5
    limit: int | None = None
    high: float = 0.5
    low: float = 0.1
    seed: int = 0
    engine: str = "transformers"
    threads: int | None = None

    def __post_init__(self) -> None:
        if not self.targets:
            raise InputError("ablate: targets: expected one or more, got none")
        if self.family not in ("neurons", "experts"):
            raise InputError(f"ablate: family: expected neurons or experts, got {self.family!r}")
        check_how(self.engine, self.how)
        if self.how == "route" and self.family != "experts":
            raise InputError("ablate: only experts can be routed around; use --family experts")
        if self.draws < 1:
            raise InputError(f"ablate: draws: must be at least 1, got {self.draws}")
        if not 0 <= self.low < self.high <= 1:
            raise InputError(
                f"ablate: expected 0 <= low < high <= 1, got low {self.low}, high {self.high}"
            )
