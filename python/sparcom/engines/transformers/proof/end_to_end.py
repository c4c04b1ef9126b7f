"""What transformers' own modules count on a proof's prompts, for engines with modules of their own.

Another engine rounds otherwise in every layer, and what differs adds up from layer to layer. How
much may differ is measured, not guessed: on the same prompts the proved transformers engine, too,
lies some way from transformers' own modules, and a right engine lies about as far. One that reads
prompts alone runs those very modules: for it, what its layers take in is rounded otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sparcom.components import ComponentSpace
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.counting.recorder import Recorder
from sparcom.engines.packing import Pass
from sparcom.engines.proof import DisagreementError, SiteProof
from sparcom.engines.transformers.proof.passes import Forward
from sparcom.engines.transformers.proof.reference import Reference

_FACTOR = 4.0  # a right engine may differ this many times as much as the transformers engine
_LEAST = 0.01  # and by this share in any case


@dataclass(frozen=True)
class Expected:
    """Counts of some prompts by transformers' own modules.

    fired: [prompts, neurons]; routed: [prompts, experts].
    own: of each site, the shares (of firings, of routed tokens) by which the transformers engine
    itself differs.
    """

    prompts: tuple[Prompt, ...]
    space: ComponentSpace
    fired: np.ndarray
    routed: np.ndarray
    own: tuple[tuple[float, float], ...] = ()


@torch.inference_mode()
def expected_counts(
    forward: Forward, recorder: Recorder, references: Sequence[Reference], space: ComponentSpace
) -> Expected:
    """What the references count, and how far a transformers engine is from them."""
    counts = []
    for ref in references:
        forward([ref.prompt], Pass((0,), ref.trace.rows))
        counts.append(recorder.take([ref.prompt.id], [0], [ref.trace.rows]))
    expected = Expected(
        prompts=tuple(ref.prompt for ref in references),
        space=space,
        fired=_stack([[gates.fired() for gates in ref.gates] for ref in references]),
        routed=_stack([[gates.routed() for gates in ref.gates] for ref in references]),
    )
    neurons = np.concatenate([c.neurons for c in counts])
    experts = np.concatenate([c.experts for c in counts])
    own = tuple(_shares(expected, neurons, experts, at) for at in range(len(space.sites)))
    return Expected(expected.prompts, space, expected.fired, expected.routed, own)


def compare_counts(expected: Expected, counted: Counted) -> tuple[SiteProof, ...]:
    """Compare the counts of another engine, in the order of the prompts.

    Raises DisagreementError naming the first site whose counts lie further away than rounding
    explains.
    """
    proofs = []
    for at, site in enumerate(expected.space.sites):
        shares = _shares(expected, counted.neurons, counted.experts, at)
        allowed = [_LEAST + _FACTOR * own for own in expected.own[at]]
        names = ("firings", "routed tokens")
        for share, most, what in zip(shares, allowed, names, strict=True):
            if share > most:
                raise DisagreementError(
                    site.name,
                    f"{100 * share:.2g} % of its {what} differ from transformers' own; rounding "
                    f"explains {100 * most:.2g} %",
                )
        columns = expected.space.neuron_slices()[at]
        apart = counted.neurons[:, columns] != expected.fired[:, columns]
        proofs.append(
            SiteProof(
                site=site.name,
                module=site.name,
                difference=shares[0],
                tolerance=allowed[0],
                compared=apart.size,
                differing=int(apart.sum()),
                unexplained=0,
                near_zero=0,
                rerouted=round(shares[1] * _tokens(expected)),
            )
        )
    return tuple(proofs)


def _shares(
    expected: Expected, neurons: np.ndarray, experts: np.ndarray, at: int
) -> tuple[float, float]:
    """Shares of a site's firings, and of its routed tokens, that are not the expected ones."""
    site, columns = expected.space.sites[at], expected.space.neuron_slices()[at]
    fired = expected.fired[:, columns]
    share = np.abs(neurons[:, columns].astype(np.int64) - fired).sum() / max(1, fired.sum())
    if not site.experts:
        return float(share), 0.0
    chosen = slice(*expected.space.expert_offsets[at : at + 2])
    moved = np.abs(experts[:, chosen].astype(np.int64) - expected.routed[:, chosen]).sum() / 2
    return float(share), float(moved / (site.top_k * _tokens(expected)))


def _tokens(expected: Expected) -> int:
    return sum(len(p.token_ids) for p in expected.prompts)


def _stack(rows: list[list[torch.Tensor]]) -> np.ndarray:
    return np.stack([torch.cat(row).numpy() for row in rows])
