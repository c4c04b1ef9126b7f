"""Placement groups of shard actors, which outlive the actor that asked for them.

Ray frees a placement group when the actor *and* the job that made it are gone (so in 2.60;
ray-project/ray#65881 asks for groups that end with their actor). A leader that dies, or a pool that
ends before its job, would leave its shards' resources taken, and the next group would wait for them
for ever. So the groups of actors have names, by which they are found again.
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

    Groups that this actor made before Ray restarted it are freed; those of its present life are
    kept, since it may lead several. In a driver, which frees its own groups, a group has no name.
    """
    import ray
    from ray.util.placement_group import placement_group

    context = ray.get_runtime_context()
    actor, name = context.get_actor_id(), ""
    if actor:
        of_actor = f"{_PREFIX}-{context.get_job_id()}-{actor}-"
        of_life = f"{of_actor}{_LIFE}-"
        _free_named(of_actor, keep=of_life)
        name = f"{of_life}{next(_numbers)}"
    return placement_group([dict(b) for b in bundles], strategy=strategy, name=name)


def free_placement_groups_of_job() -> None:
    """Free, from the driver, the groups that actors of this job have left; no pool may run."""
    import ray

    _free_named(f"{_PREFIX}-{ray.get_runtime_context().get_job_id()}-")


def _free_named(prefix: str, keep: str | None = None) -> None:
    """Free the groups whose names begin with `prefix`, except those that begin with `keep`."""
    from ray.util import placement_group_table, remove_placement_group
    from ray.util.placement_group import get_placement_group

    for group in placement_group_table().values():
        name = group["name"]
        if not name.startswith(prefix) or (keep and name.startswith(keep)):
            continue
        if group["state"] != "REMOVED":
            remove_placement_group(get_placement_group(name))
