"""How a loaded model was proved, whatever the engine: what is compared, and what run.json says."""

from dataclasses import dataclass
from typing import Any

from sparcom.errors import InputError


@dataclass(frozen=True)
class SiteProof:
    """How the counts of one site agree with those they are compared with.

    difference: largest of the states of its layer, as a share of a row's size; tolerance: allowed.
    compared: counts, of one neuron in one prompt each; differing: of them; unexplained: of
    those, by gates that are not near zero.
    near_zero: gates that are. rerouted: tokens that reach other experts.
    """

    site: str
    module: str
    difference: float
    tolerance: float
    compared: int
    differing: int
    unexplained: int
    near_zero: int
    rerouted: int


@dataclass(frozen=True)
class Proof:
    """A proof that holds.

    against: what the engine was compared with. passes: how it reads prompts.
    lengths: tokens of each prompt; windows: those of the model that were shortened for it.
    """

    against: str
    passes: str
    sites: tuple[SiteProof, ...]
    lengths: tuple[int, ...]
    windows: dict[str, int]
    seconds: float

    def facts(self) -> dict[str, Any]:
        """What run.json says of it: nothing measured, so that all actors say the same."""
        return {
            "proved": True,
            "against": self.against,
            "passes": self.passes,
            "prompts": list(self.lengths),
            "shortened_windows": dict(self.windows),
        }


class DisagreementError(InputError):
    """The engine's pass is not the model's own: `where` it differs, without measured numbers."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where = where


def not_proved(why: str) -> dict[str, Any]:
    """What run.json says if there is no proof."""
    return {"proved": False, "why": why}
