"""`ablate`: what the model loses, category by category, without a set of components."""

from functools import cache

import numpy as np

from sparcom.ablation.ablation import Ablation, summarise
from sparcom.ablation.behaviour import Tasks, metrics_of, with_tasks
from sparcom.ablation.experiment import Experiment, Progress
from sparcom.ablation.halves import split_clusters, usage_of_halves
from sparcom.ablation.measures import answered
from sparcom.ablation.options import AblationOptions
from sparcom.ablation.target import targets
from sparcom.errors import InputError
from sparcom.store import Run


def ablate(
    run: Run,
    options: AblationOptions | None = None,
    progress: Progress = lambda done, planned: None,
) -> Ablation:
    """Ablate targets of a run, measure what is lost on its corpus' reference answers, and store it.

    Targets are found on half of the clusters and scored on the other half, both ways, beside
    random sets that fire and contribute as much. The model is read by `options.engine` in the
    run's dtype, whichever engine counted; the transformers engine measures what is matched.
    With `options.behaviour` the answers that the model writes are scored instead of the loss.
    progress: called after each measurement with (how many are done, how many are planned).
    Writes analysis/ablation.parquet, or analysis/behaviour.parquet.
    Raises InputError if the model is not there or has other weights than the run, no instruction
    has a reference, or a target is empty.

    >>> result = ablate(Run("runs/chat"), AblationOptions(targets=("specific:20",)))
    >>> result.of("specific:20:MATH", "MATH").verdict
    """
    options = options or AblationOptions()
    if options.family == "experts" and not run.space.experts:
        raise InputError("ablate: family experts, but the model has no routed experts")
    rng = np.random.default_rng(options.seed)
    half = split_clusters(
        run.labels["cluster"].to_pylist(), run.labels["category"].to_pylist(), rng
    )
    known, warnings = answered(run, half)
    tasks: Tasks = {}
    metrics: dict[str, str] = {}
    if options.behaviour:
        known, tasks, more = with_tasks(known, options)
        metrics, warnings = metrics_of(known, tasks), [*warnings, *more]
    found = targets(
        options.targets, run.space, options.family,
        cache(lambda measure: usage_of_halves(run, options.family, half, measure)),
        known.categories,
        high=options.high, low=options.low,
    )  # fmt: skip
    experiment = Experiment(run, options, known, found, rng, progress, tasks)
    measured, scored = experiment.measure()
    warnings += experiment.warnings
    result = summarise(scored, measured, options, warnings, metrics)
    run.store.write_table("behaviour" if options.behaviour else "ablation", result.table())
    return result
