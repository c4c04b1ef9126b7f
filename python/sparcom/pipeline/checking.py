"""Checking what a stopped run has stored, by tasks of a cluster: each reads some of its files."""

from collections.abc import Iterator, Mapping, Sequence

from sparcom.store import RunStore
from sparcom.store.check import Bad, check_here

FILES_OF_TASK = 64


def check_by_tasks(store: RunStore, names: Sequence[str]) -> Iterator[Bad]:
    """`store.check.check_here`, by Ray tasks; the driver holds a reference a task."""
    import ray

    # No actor runs yet, so that the CPU of each task is free or will be.
    task = ray.remote(num_cpus=1, max_retries=3, scheduling_strategy="SPREAD")(check_task)
    groups = [names[at : at + FILES_OF_TASK] for at in range(0, len(names), FILES_OF_TASK)]
    for bad in [task.remote(store.location, store.stamps, group) for group in groups]:
        yield from ray.get(bad)


def check_task(location: str, stamps: Mapping[str, str], names: Sequence[str]) -> list[Bad]:
    """The files that cannot be used, of some."""
    return list(check_here(RunStore(location, stamps), names))
