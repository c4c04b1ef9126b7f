"""Placement groups of shard actors, which outlive the actor that asked for them.

Ray frees a placement group when the actor *and* the job that made it are gone. A leader that dies,
or a pool that ends before its job, would leave its shards' resources taken, and the next group
would wait for them for ever. So the groups of actors have names, by which they are found again.
"""

import itertools
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

_PREFIX = "sparcom-shards"
_LIFE = uuid.uuid4().hex[:8]  # a restarted actor has its old id, in another process
_numbers = itertools.count()


def reserve(bundles: Sequence[Mapping[str, float]], strategy: str) -> Any:
    """A placement group, not yet ready.

    Those that this actor left before it was restarted are freed, and none of this life: it may lead
    several groups. In a driver, which frees its groups itself, it has no name.
    """
    import ray
    from ray.util.placement_group import placement_group

    context = ray.get_runtime_context()
    actor, name = context.get_actor_id(), ""
    if actor:
        of_actor = f"{_PREFIX}-{context.get_job_id()}-{actor}-"
        of_life = f"{of_actor}{_LIFE}-"
        _free_named(of_actor, but=of_life)
        name = f"{of_life}{next(_numbers)}"
    return placement_group([dict(b) for b in bundles], strategy=strategy, name=name)


def free_placement_groups_of_job() -> None:
    """Free, from the driver, what actors of this job have left; called when no pool runs."""
    import ray

    _free_named(f"{_PREFIX}-{ray.get_runtime_context().get_job_id()}-")


def _free_named(prefix: str, but: str | None = None) -> None:
    """Free the groups whose names begin so, except those whose names begin with `but`."""
    from ray.util import placement_group_table, remove_placement_group
    from ray.util.placement_group import get_placement_group

    for place in placement_group_table().values():
        name = place["name"]
        if not name.startswith(prefix) or (but and name.startswith(but)):
            continue
        if place["state"] != "REMOVED":
            remove_placement_group(get_placement_group(name))
