"""What actors need, and what a cluster lacks for them: plain functions, tested without Ray."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparcom.config import RunConfig
from sparcom.planning.options import cpus_per_actor

Amounts = Mapping[str, float]
GB = 10**9


@dataclass(frozen=True)
class Resources:
    """actors: how many; each: resources of one; workers: those of each worker that it leads."""

    actors: int
    each: dict[str, float]
    workers: tuple[dict[str, float], ...] = ()

    @property
    def bundles(self) -> list[dict[str, float]]:
        """What one replica takes in all, piece by piece; a piece lies on one machine."""
        return [self.each, *self.workers]

    def total(self, name: str) -> float:
        return self.actors * sum(piece.get(name, 0.0) for piece in self.bundles)


def resources_of(config: RunConfig, parts: int) -> Resources:
    """What the replicas of a config take; no more of them than there are parts."""
    worker: dict[str, float] = {"CPU": float(cpus_per_actor(config))}
    if config.gpus:
        worker["GPU"] = config.gpus
    more = dict(config.custom_resources())
    if config.memory:
        more["memory"] = config.memory * GB
    actors = max(1, min(config.actors, parts))
    if config.workers == 1:
        return Resources(actors, worker | more)
    return Resources(actors, {"CPU": 1.0} | more, (worker,) * config.workers)


def missing_resources(resources: Resources, machines: Sequence[Amounts], free: Amounts) -> str:
    """What a cluster lacks for the actors, in words; "" where nothing does.

    machines: all resources of each machine; free: the cluster's resources that nobody holds.
    """
    for piece in resources.bundles:
        if any(all(m.get(n, 0.0) >= a for n, a in piece.items()) for m in machines):
            continue
        best = max(
            machines, key=lambda m: sum(m.get(n, 0.0) >= a for n, a in piece.items()), default={}
        )
        short = ", ".join(
            f"{format_amount(n, a)} (has {format_amount(n, best.get(n, 0.0))})"
            for n, a in piece.items()
            if best.get(n, 0.0) < a
        )
        return f"none of {len(machines)} machines can hold an actor; the best lacks {short}"
    names = {name for piece in resources.bundles for name in piece}
    held = {n: sum(m.get(n, 0.0) for m in machines) for n in names}
    few = [
        f"{format_amount(n, wanted)} (has {format_amount(n, held[n])}, "
        f"{format_amount(n, free.get(n, 0.0))} free)"
        for n in sorted(names)
        if held[n] < (wanted := resources.total(n))
    ]
    if few:
        return f"the cluster is smaller than {resources.actors} actors need: {', '.join(few)}"
    return ""


def format_amount(name: str, amount: float) -> str:
    """`4 CPU`, `0.5 GPU`, `12.0 GB memory`."""
    if name == "memory":
        return f"{amount / GB:.1f} GB memory"
    return f"{amount:g} {name}"
