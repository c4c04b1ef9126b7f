"""Ray Data maps the parts that are not done over a pool of actors."""

import itertools
import logging
import uuid
import warnings
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any

from sparcom.config import RunConfig
from sparcom.engines.vllm.shards.placement_groups import free_placement_groups_of_job
from sparcom.errors import SparcomError
from sparcom.pipeline.actor import ERRORS, CountActor, PartResult
from sparcom.pipeline.plan import Plan
from sparcom.pipeline.ray.resources import resources_of

_logger = logging.getLogger("sparcom.pipeline")


def count_parts(plan: Plan) -> Generator[PartResult, None, None]:
    """Count what is not done; yields as parts finish, in any order.

    Ray restarts actors; what it gives up (a lost node may take helpers of Ray Data with it) is
    begun again with the parts that are left, as often as an actor is restarted.
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
    """Count parts with one pool of actors."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    numbers = ray.data.from_items([{"part": n} for n in parts], override_num_blocks=len(parts))
    with warnings.catch_warnings():  # Ray 2.60 has no other way to name actors, bound restarts
        warnings.simplefilter("ignore", DeprecationWarning)
        dataset = numbers.map(
            CountActor,
            fn_constructor_args=(plan.work,),
            compute=pool_of(plan.config, len(parts)),
            ray_remote_args_fn=namer(plan.work.run_id),
            **actor_arguments(plan.config),
        )
    with closing(iter(dataset.iter_rows())) as rows:  # which ends Ray Data's own threads
        for row in rows:
            if row["error"]:
                raise ERRORS[row["error"]](row["text"])
            yield PartResult(**{k: v for k, v in row.items() if k not in ("error", "text")})


def pool_of(config: RunConfig, parts: int) -> Any:
    """The pool: of fixed size, or growing to `max_actors`; each actor has its next part at hand."""
    import ray

    # An actor with a GPU, or a serving engine, reads and writes one part while it counts another.
    calls = 2 if config.gpus or config.engine == "vllm" else 1
    threads = {"max_concurrent_calls_per_actor": calls, "enable_true_multi_threading": calls > 1}
    least = min(config.actors, parts)
    most = min(config.max_actors or config.actors, parts)
    if most > least:
        return ray.data.ActorPoolStrategy(min_size=least, max_size=most, **threads)
    return ray.data.ActorPoolStrategy(size=least, **threads)


def actor_arguments(config: RunConfig) -> dict[str, Any]:
    """Resources and restarts of an actor, as Ray takes them."""
    each = dict(resources_of(config, 1).each)
    out: dict[str, Any] = {
        "num_cpus": each.pop("CPU"),
        "max_restarts": config.restarts,
        "max_task_retries": config.restarts,
    }
    for name, argument in (("GPU", "num_gpus"), ("memory", "memory")):
        if name in each:
            out[argument] = each.pop(name)
    if each:
        out["resources"] = each
    return out


def namer(run_id: str) -> Callable[[], dict[str, str]]:
    """Gives each actor of a pool a name: `sparcom-RUN-POOL-0`, `sparcom-RUN-POOL-1`, ..."""
    pool, numbers = uuid.uuid4().hex[:4], itertools.count()
    return lambda: {"name": f"sparcom-{run_id}-{pool}-{next(numbers)}"}


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
