"""What an ablation is asked to do."""

from dataclasses import dataclass

from sparcom.ablation.how import How, parse_how
from sparcom.errors import InputError

FEWEST_SETS = 99
"""Random sets of each target unless told otherwise, or more where the correction needs them."""


@dataclass(frozen=True)
class AblationOptions:
    """Options of `ablate`.

    targets: words of `target.targets`. family: "neurons" | "experts".
    how: a word of `how.parse_how`; of several factors, each is a dose.
    random_sets: matched random sets of each target; None: 99, or as many as p = 0.05 needs after
        the correction over the targets (20 a target, less 1).
    early: stop drawing them where the answer is plain.
    plain_sets: random sets of each target that are enlarged until plain text suffers as much.
    limit: instructions of each category that are scored; None: all.
    answer_tokens: of each reference answer, the first that are scored; None: all.
    behaviour: score answers that the model writes instead, of at most so many tokens; 0: the loss.
    run_code: run what it writes for CODE, in a sandbox. aliases: a CSV file of further right
        answers (`behaviour.tasks`).
    high, low: bounds of general and unique.
    engine: "transformers" | "vllm", whichever engine counted. threads: of it (of each of its
        workers); None: all cores.
    """

    targets: tuple[str, ...] = ("specific:20",)
    family: str = "neurons"
    how: str = "zero"
    random_sets: int | None = None
    early: bool = True
    plain_sets: int = 3
    limit: int | None = 10
    answer_tokens: int | None = 32
    behaviour: int = 0
    run_code: bool = False
    aliases: str | None = None
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
        if self.hows[0].shift is not None and self.family != "experts":
            raise InputError(f"ablate: only experts have a router, for --how {self.how}; use "
                             "--family experts")  # fmt: skip
        least = {"random_sets": 1, "plain_sets": 0, "limit": 2, "answer_tokens": 1, "behaviour": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                shown = name.replace("_", "-")
                raise InputError(f"ablate: {shown}: must be at least {bound}, got {value}")
        if not self.behaviour and (self.run_code or self.aliases):
            raise InputError("ablate: run-code and aliases score answers; give behaviour too")
        if not 0 <= self.low < self.high <= 1:
            raise InputError(
                f"ablate: expected 0 <= low < high <= 1, got low {self.low}, high {self.high}"
            )

    @property
    def hows(self) -> tuple[How, ...]:
        """The ways to ablate; several doses for several factors."""
        return parse_how(self.how, self.engine)
