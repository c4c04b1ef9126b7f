"""A pool of Ray actors counts the parts that are not done."""

import logging
import uuid
from collections import deque
from collections.abc import Generator
from contextlib import closing
from typing import Any

from sparcom.config import RunConfig
from sparcom.engines.vllm.shards.placement_groups import free_placement_groups_of_job
from sparcom.errors import SparcomError
from sparcom.pipeline.actor import ERRORS, CountActor, PartError, PartResult
from sparcom.pipeline.plan import Plan
from sparcom.pipeline.ray.resources import resources_of

_logger = logging.getLogger("sparcom.pipeline")


def count_parts(plan: Plan) -> Generator[PartResult, None, None]:
    """Count what is not done; yields as parts finish, in any order.

    Ray restarts actors and gives them their parts again; what it gives up is begun again with the
    parts that are left, as often as an actor is restarted.
    Raises the SparcomError that stopped an actor.
    """
    import ray

    todo, left = set(plan.todo), plan.config.restarts
    while todo:
        try:
            with closing(_one_pool(plan, sorted(todo))) as results:
                for result in results:
                    todo.discard(result.part)
                    yield result
        except ray.exceptions.RayTaskError:
            raise  # an error in our own code, with its traceback
        except ray.exceptions.RayError as error:
            if not left:
                raise SparcomError(what_died(error, plan.config.restarts)) from error
            left -= 1
            _logger.warning("%s; starting actors again", first_cause(error))
        finally:
            if plan.config.workers > 1:
                free_placement_groups_of_job()


def _one_pool(plan: Plan, parts: list[int]) -> Generator[PartResult, None, None]:
    """Count parts with one pool of actors, which are gone when it ends.

    An actor gets parts once it has its place, so that a pool grows as far as there is room. While
    parts are left for all, each has its next one at hand; an actor that gets none any more leaves.
    """
    import ray

    waiting, calls = deque(parts), calls_of(plan.config)
    joining = {actor.ready.remote(): actor for actor in _start_actors(plan, len(parts))}
    under_way: dict[Any, Any] = {}  # what a part will result in -> its actor
    held: dict[Any, int] = {}  # actor -> parts that it was given
    try:
        while waiting or under_way:
            (done,), _ = ray.wait([*under_way, *joining])
            if done in joining:
                actor = joining.pop(done)
                ray.get(done)
                held[actor] = 0
            else:
                actor = under_way.pop(done)
                held[actor] -= 1
                result = ray.get(done)
                if isinstance(result, PartError):
                    raise ERRORS[result.kind](result.text)
                yield result
            while waiting and held[actor] < calls + (len(waiting) > len(held) + len(joining)):
                under_way[actor.count.remote(waiting.popleft())] = actor
                held[actor] += 1
            if not held[actor]:
                del held[actor]
            del actor  # Ray ends an actor to which nothing refers, in order
    finally:
        for actor in [*held, *joining.values()]:  # with parts that nobody waits for, or no place
            ray.kill(actor)


def _start_actors(plan: Plan, parts: int) -> list[Any]:
    """Actors named `sparcom-RUN-POOL-0`, `sparcom-RUN-POOL-1`, ...; no more than parts."""
    import ray

    most = max(plan.config.actors, plan.config.max_actors or 0)
    kind: Any = ray.remote(CountActor)
    pool = f"sparcom-{plan.work.run_id}-{uuid.uuid4().hex[:4]}"
    return [
        kind.options(name=f"{pool}-{number}", **actor_arguments(plan.config)).remote(plan.work)
        for number in range(min(most, parts))
    ]


def calls_of(config: RunConfig) -> int:
    """Parts that an actor has at once: with a GPU, or a serving engine, it reads and writes one
    while it counts another."""
    return 2 if config.gpus or config.engine == "vllm" else 1


def actor_arguments(config: RunConfig) -> dict[str, Any]:
    """Resources, threads and restarts of an actor, as Ray takes them."""
    each = dict(resources_of(config, 1).each)
    out: dict[str, Any] = {
        "num_cpus": each.pop("CPU"),
        "max_concurrency": calls_of(config),
        "max_restarts": config.restarts,
        "max_task_retries": config.restarts,
    }
    for name, argument in (("GPU", "num_gpus"), ("memory", "memory")):
        if name in each:
            out[argument] = each.pop(name)
    if each:
        out["resources"] = each
    return out


def first_cause(error: Exception) -> str:
    """The line of a Ray error that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "Error" in line or "died" in line), lines[0])


def what_died(error: Exception, restarts: int) -> str:
    """One line for what Ray raises when actors cannot go on."""
    return (
        f"an actor could not go on, after {restarts} restarts: {first_cause(error)}; --resume "
        "finishes the run"
    )
