"""The service: a corpus is planned into parts, Ray Data maps them over actors, parts are stored.

    plan      corpus -> prompts -> corpus.parquet, run.json         the driver, streaming
    pool      part numbers -> actors                                Ray Data
    actor     part -> engine -> counts, sets, profile -> files      actors, each with a model
    merging   profiles of parts -> profile of the run               the driver, or Ray tasks
    run       all of it, under one lock; run.json says complete     the driver

Only part numbers and a line of figures per part cross the network: actors read prompts from, and
write results to, the run directory. What an actor does to a part is a plain function, `count_part`.
"""

from sparcom.pipeline.actor import CountActor, PartResult
from sparcom.pipeline.part import count_part
from sparcom.pipeline.plan import Plan, Work, plan_prompts, prepare
from sparcom.pipeline.ray.pool import count_parts
from sparcom.pipeline.ray.session import ray_session
from sparcom.pipeline.reselect import run_identify
from sparcom.pipeline.run import RunSummary, run_count
from sparcom.pipeline.signals import Terminated
from sparcom.planning.engines import cpus_per_actor, engine_options, load_engine

__all__ = [
    "CountActor",
    "PartResult",
    "Plan",
    "RunSummary",
    "Terminated",
    "Work",
    "count_part",
    "count_parts",
    "cpus_per_actor",
    "engine_options",
    "load_engine",
    "plan_prompts",
    "prepare",
    "ray_session",
    "run_count",
    "run_identify",
]
