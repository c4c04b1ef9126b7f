"""Ray Data maps the parts that are not done over a pool of actors."""

import itertools
import warnings
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from sparcom.config import RunConfig
from sparcom.errors import SparcomError
from sparcom.service.actor import ERRORS, CountActor, PartResult
from sparcom.service.needs import needs_of
from sparcom.service.plan import Plan


def count_parts(plan: Plan) -> Iterator[PartResult]:
    """Count what is not done; yields as parts finish, in any order.

    Raises the SparcomError that stopped an actor.
    """
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    config = plan.config
    parts = ray.data.from_items(
        [{"part": part} for part in plan.todo], override_num_blocks=len(plan.todo)
    )
    with warnings.catch_warnings():  # Ray 2.60 has no other way to name actors, bound restarts
        warnings.simplefilter("ignore", DeprecationWarning)
        dataset = parts.map(
            CountActor,
            fn_constructor_args=(plan.work,),
            compute=pool_of(config, len(plan.todo)),
            ray_remote_args_fn=namer(plan.work.run_id),
            **actor_arguments(config),
        )
    try:
        with closing(iter(dataset.iter_rows())) as rows:  # which ends Ray Data's own threads
            for row in rows:
                if row["error"]:
                    raise ERRORS[row["error"]](row["text"])
                yield PartResult(**{k: v for k, v in row.items() if k not in ("error", "text")})
    except ray.exceptions.RayError as error:
        raise SparcomError(what_died(error, config)) from error


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
    each = dict(needs_of(config, 1).each)
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


def namer(run_id: str) -> Any:
    """Gives each actor of a pool a name: `sparcom-RUN-0`, `sparcom-RUN-1`, ..."""
    numbers = itertools.count()
    return lambda: {"name": f"sparcom-{run_id}-{next(numbers)}"}


def what_died(error: Exception, config: RunConfig) -> str:
    """One line for what Ray raises when actors cannot go on."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = next((line for line in lines if "Error" in line or "died" in line), "no reason given")
    return (
        f"an actor could not go on, after {config.restarts} restarts at most: {cause}; --resume "
        "finishes the run"
    )
