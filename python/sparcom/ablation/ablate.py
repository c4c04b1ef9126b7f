"""`ablate`: what the model loses, category by category, without a set of components."""

from collections import Counter
from collections.abc import Callable

import numpy as np

from sparcom.ablation.ablation import Ablation, summarise
from sparcom.ablation.controls import matched_random
from sparcom.ablation.measures import measure, open_ablator, options_of_engine
from sparcom.ablation.options import AblationOptions
from sparcom.ablation.target import targets, usage
from sparcom.config import RunConfig
from sparcom.corpus.schema import FIELDS, Instruction, to_instruction
from sparcom.errors import InputError
from sparcom.models import weights_fingerprint
from sparcom.planning.prompts import PromptMaker
from sparcom.store import Run


def ablate(
    run: Run, options: AblationOptions | None = None, tick: Callable[[], None] = lambda: None
) -> Ablation:
    """Ablate targets of a run, measure the loss on its corpus' reference answers, and store it.

    The model is read by `options.engine` in the run's dtype, whichever engine counted.
    tick: called after each measurement. Writes analysis/ablation.parquet.
    Raises InputError if the model is not there or has other weights than the run, no instruction
    has a reference, or a target is empty.

    >>> result = ablate(Run("runs/chat"), AblationOptions(targets=("unique:MATH",), draws=10))
    >>> result.effect[0][-1]
    """
    options = options or AblationOptions()
    known, family = usage(run, options.family), options.family
    found = [
        target
        for word in options.targets
        for target in targets(word, known, run.space, family, high=options.high, low=options.low)
    ]
    rng = np.random.default_rng(options.seed)
    random = [
        [matched_random(target, known, run.space, rng) for _ in range(options.draws)]
        for target in found
    ]
    config = RunConfig.from_json(run.manifest["config"])
    instructions, warnings = _answered(run, options.limit)
    engine_of = options_of_engine(config, options)
    if weights_fingerprint(engine_of.model) != run.manifest["model"]["weights"]:
        raise InputError(f"ablate: model {engine_of.model}: its weights are not those of the run")
    with open_ablator(engine_of, options) as ablator:
        maker = PromptMaker(config, engine_of)
        losses = measure(ablator, maker, config, instructions, found, random, tick)
    labels = [item.category for item in instructions]
    result = summarise(found, labels, losses, options, warnings)
    run.store.write_table("ablation", result.table())
    return result


def _answered(run: Run, limit: int | None) -> tuple[list[Instruction], list[str]]:
    """(the counted instructions that have a reference answer, warnings).

    At most `limit` of each category are looked at. They are those that were counted, whatever has
    become of the corpus file since.
    """
    taken: Counter[str] = Counter()
    counted, kept, missing = set(run.labels["id"].to_pylist()), [], 0
    for record in run.store.corpus.table(FIELDS).to_pylist():
        item = to_instruction(record)
        if item.id not in counted or taken[item.category] == limit:
            continue
        taken[item.category] += 1
        if item.reference:
            kept.append(item)
        else:
            missing += 1
    if not kept:
        raise InputError(
            f"ablate: {run.store.location}: no instruction has a reference answer, on which the "
            "loss is measured; count a corpus with the field `reference`"
        )
    return kept, [f"{missing} instructions have no reference answer"] if missing else []
