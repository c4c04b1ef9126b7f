"""Passes of an engine against transformers' own passes of the same prompts, module by module.

Every layer, and every module of a layer, must put out the same within the rounding of the dtype;
every count must be the same, up to gates that are within that rounding of zero.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.recorder import Recorder
from sparcom.engines.packing import Pass
from sparcom.engines.proof import DisagreementError, SiteProof
from sparcom.engines.transformers.proof.compare import difference, tolerance
from sparcom.engines.transformers.proof.prompts import FILLER
from sparcom.engines.transformers.proof.reference import LAST, Reference
from sparcom.engines.transformers.proof.trace import (
    INPUT,
    OUTPUT,
    Points,
    Trace,
    entry_name,
    forced,
    tracing,
)
from sparcom.engines.transformers.sites import Ffn

_UNEXPLAINED = 1e-4  # share of a site's counts that may differ by gates that are not near zero
_REROUTED = 0.25  # share of tokens whose experts rounding may change


Forward = Callable[[Sequence[Prompt], Pass], torch.Tensor]
"""`TransformersEngine.forward`."""


@dataclass
class _Seen:
    """What the passes of the engine showed.

    apart: module -> largest difference of its states; entry: site -> that of what its FFN takes in.
    counts: (prompt, neurons, experts) of every prompt in every pass. rerouted: site -> tokens.
    """

    apart: dict[str, float] = field(default_factory=dict)
    entry: dict[int, float] = field(default_factory=dict)
    counts: list[tuple[int, np.ndarray, np.ndarray]] = field(default_factory=list)
    rerouted: dict[int, int] = field(default_factory=dict)
    tokens: int = 0


def orders(n: int, together: bool) -> Iterator[tuple[int, ...]]:
    """Which prompts the passes of a proof hold: each alone; then all, and all in reverse."""
    yield from ((at,) for at in range(n))
    if together:
        yield tuple(range(n))
        yield tuple(reversed(range(n)))


@torch.inference_mode()
def compare_passes(
    forward: Forward,
    recorder: Recorder,
    points: Points,
    references: Sequence[Reference],
    *,
    packed: bool,
    together: bool = True,
) -> tuple[SiteProof, ...]:
    """Compare passes of an engine, counted by its recorder, with the references.

    packed: there are rows behind the prompts that no prompt fills, as in packed passes.
    together: prompts share passes too.
    Raises DisagreementError naming the first module that puts out something else, or the site whose
    counts differ.
    """
    seen = _Seen()
    bound = tolerance(references[0].last.dtype)
    for order in orders(len(references), packed and together):
        held = [references[at] for at in order]
        lengths = [ref.trace.rows for ref in held]
        starts = np.cumsum([0, *lengths]).tolist()
        one = Pass(order, starts.pop() + (FILLER if packed else 0))
        given = {start: ref.trace for start, ref in zip(starts, held, strict=True)}
        with tracing(points, one.rows) as trace, forced(points, trace, given):
            last = forward([ref.prompt for ref in held], one)
        trace.states[LAST, OUTPUT] = last
        for start, ref in zip(starts, held, strict=True):
            how = "packed with another" if len(order) > 1 else "alone"
            _compare_states(points, trace, ref, slice(start, start + ref.trace.rows), bound, how,
                            seen)  # fmt: skip
        taken = recorder.take([r.prompt.id for r in held], range(len(held)), lengths)
        seen.counts += zip(order, taken.neurons, taken.experts, strict=True)
        seen.tokens += sum(lengths)
    return _compare_sites(points, references, seen, bound)


def _compare_states(
    points: Points, trace: Trace, ref: Reference, rows: slice, bound: float, how: str, seen: _Seen
) -> None:
    """Compare the rows of one prompt in all that both passes show, in the order of the pass.

    Inputs are compared if they are not forced: those of the first layer and of the FFNs.
    """
    entries = {entry_name(ffn): at for at, ffn in enumerate(points.ffns)}
    modules = dict((*points.layers, *points.parts))
    for (name, which), plain in ref.states():
        if which == INPUT and name != points.layers[0][0] and name not in entries:
            continue
        ours = trace.states.get((name, which))
        if ours is None:
            raise DisagreementError(name, "it is not called as in transformers' own pass")
        apart = difference(ours[rows], plain)
        if apart > bound:
            kind = f" ({type(modules[name]).__name__})" if name in modules else ""
            raise DisagreementError(
                f"{name}{kind}, of a prompt {how}",
                f"its {which} differs from transformers' own by {100 * apart:.2g} % of its size; "
                f"rounding explains {100 * bound:.2g} %",
            )
        seen.apart[name] = max(seen.apart.get(name, 0.0), apart)
        if name in entries and which == INPUT:
            at = entries[name]
            seen.entry[at] = max(seen.entry.get(at, 0.0), apart)
    for at, (ids, _) in ref.trace.routed.items():
        other = (trace.routed[at][0][rows].sort(1).values != ids.sort(1).values).any(1)
        seen.rerouted[at] = seen.rerouted.get(at, 0) + int(other.sum())


def _compare_sites(
    points: Points, references: Sequence[Reference], seen: _Seen, bound: float
) -> tuple[SiteProof, ...]:
    """Compare the counts of every site, whose layers were given equal inputs."""
    proofs, neuron, expert = [], 0, 0
    for at, ffn in enumerate(points.ffns):
        neurons = slice(neuron, neuron + ffn.site.neurons)
        experts = slice(expert, expert + ffn.site.experts)
        neuron, expert = neurons.stop, experts.stop
        counts = [(ref, n[neurons], e[experts]) for ref, n, e in seen.counts]
        proofs.append(_compare_site(points, at, references, counts, seen, bound))
        _check_site(ffn, proofs[-1], seen.tokens)
    return tuple(proofs)


def _compare_site(
    points: Points,
    at: int,
    references: Sequence[Reference],
    counts: Sequence[tuple[int, np.ndarray, np.ndarray]],
    seen: _Seen,
    bound: float,
) -> SiteProof:
    ffn = points.ffns[at]
    gates = [ref.gates[at] for ref in references]
    fired = [g.fired().numpy() for g in gates]
    near = [g.near_zero(seen.entry.get(at, 0.0)).numpy() for g in gates]
    compared = differing = unexplained = 0
    for ref, neurons, experts in counts:
        if (experts != gates[ref].routed().numpy()).any():
            raise DisagreementError(ffn.name, "its experts count other rows than they were given")
        apart = np.abs(neurons - fired[ref])
        compared += len(apart)
        differing += int((apart > 0).sum())
        unexplained += int((apart > near[ref]).sum())
    layer = f"{points.layers[ffn.site.layer][0]}."
    states = [v for name, v in seen.apart.items() if f"{name}.".startswith(layer)]
    return SiteProof(
        site=ffn.site.name,
        module=ffn.name,
        difference=max(states),
        tolerance=bound,
        compared=compared,
        differing=differing,
        unexplained=unexplained,
        near_zero=int(sum(n.sum() for n in near)),
        rerouted=seen.rerouted.get(at, 0),
    )


def _check_site(ffn: Ffn, proof: SiteProof, tokens: int) -> None:
    """Raise DisagreementError if more differs than rounding explains."""
    where = f"{ffn.name} ({type(ffn.module).__name__})"
    if proof.unexplained > _UNEXPLAINED * proof.compared:
        raise DisagreementError(
            where,
            f"{proof.unexplained} of {proof.compared} counts differ from transformers' own by "
            "gates that are not near zero",
        )
    if proof.rerouted > max(1, _REROUTED * tokens):
        raise DisagreementError(
            where,
            f"{proof.rerouted} of {tokens} tokens reach other experts than in transformers' own",
        )
