"""Does it suffice to tune a set of neurons? The set, random sets like it, and all of them.

    python -m sparcom.testbed.tune_units runs/first --target specific:200:MATH --steps 60

The set is found on half of the clusters, and every arm is trained on the answers of that half: the
same instructions in the same order, for equally many steps. The other half is scored. Random sets
are matched with the set as those of an ablation are: site, firing, contribution.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from sparcom.ablation.halves import split_clusters, usage_of_halves
from sparcom.ablation.matching import matched_sets
from sparcom.ablation.measures import (
    Answered,
    answered,
    choose,
    open_transformers,
    options_of_engine,
    prompts_of,
)
from sparcom.ablation.options import AblationOptions
from sparcom.ablation.target import CrossTarget, targets
from sparcom.ablation.use import measure_use, output_norms
from sparcom.component_list import Components
from sparcom.config import RunConfig
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.errors import InputError
from sparcom.formatting import render_table
from sparcom.models import weights_fingerprint
from sparcom.planning.prompts import PromptMaker
from sparcom.store import Run
from sparcom.testbed.fine_tune import answer_logits, cut_to, train
from sparcom.testbed.masks import every_unit, train_only, weights_of_units

SCHEMA = pa.schema(
    [
        ("arm", pa.string()),
        ("neurons", pa.int64()),
        ("weights", pa.int64()),
        ("category", pa.string()),
        ("instructions", pa.int64()),
        ("loss", pa.float64()),
        ("accuracy", pa.float64()),
    ]
)


def tune_units(
    run: Run,
    target: str = "specific:200:MATH",
    *,
    random_sets: int = 3,
    steps: int = 60,
    batch: int = 4,
    rate: float = 1e-4,
    longest: int = 256,
    limit: int = 20,
    seed: int = 0,
) -> pa.Table:
    """Train the arms and score each on every category.

    target: one target of `ablation.target.targets`; with a category, its answers are trained on,
        else those of all. limit: instructions of each category that are scored, of the other half.
    Returns a row for each arm ("untrained", "target", "random 1", ..., "all neurons") and category:
    neurons and single weights that were trained; mean loss in nats per answer token, and accuracy,
    the share of answer tokens that are the most likely ones, both over instructions.
    Raises InputError if the words name no target or several, or the model has other weights.
    """
    rng = np.random.default_rng(seed)
    half = split_clusters(
        run.labels["cluster"].to_pylist(), run.labels["category"].to_pylist(), rng
    )
    known, _ = answered(run, half)
    one = _target(run, target, known, half)
    config = RunConfig.from_json(run.manifest["config"])
    engine_of = options_of_engine(config, AblationOptions(), "transformers")
    if weights_fingerprint(engine_of.model) != run.manifest["model"]["weights"]:
        raise InputError(f"tune_units: {engine_of.model}: its weights are not those of the run")
    maker = PromptMaker(config, engine_of)
    own = known.of(0, one.category)
    with open_transformers(engine_of, "zero") as ablator:
        norms = output_norms(ablator.engine.ffns, ablator.engine.space)
        read = prompts_of(maker, config, own, scope="all")
        use = measure_use(ablator.engine, read, norms, "neurons")
    drawn = matched_sets(one.found[0], use, run.space, random_sets, rng)
    none = np.zeros(0, np.int64)
    arms = {"untrained": none, "target": one.found[0].index}
    arms |= {f"random {at}": index for at, index in enumerate(drawn, 1)}
    arms["all neurons"] = every_unit(run.space).neurons
    training = cut_to(prompts_of(maker, config, own, scope="response"), longest)
    scored = _scored(maker, config, known, limit, longest)
    rows: list[dict[str, Any]] = []
    for name, index in arms.items():
        model = AutoModelForCausalLM.from_pretrained(engine_of.model, dtype=torch.float32)
        weights = 0
        if len(index):
            masks = weights_of_units(model, Components(index, none))
            weights = sum(int(mask.sum()) for mask in masks.values())
            trained = train_only(model, masks)
            train(model, trained, training, steps=steps, batch=batch, rate=rate, seed=seed)
        for category, prompts in scored.items():
            loss, accuracy = score(model, prompts)
            rows.append({
                "arm": name, "neurons": len(index), "weights": weights, "category": category,
                "instructions": len(prompts), "loss": loss, "accuracy": accuracy,
            })  # fmt: skip
    return pa.Table.from_pylist(rows, SCHEMA)


@torch.inference_mode()
def score(model: Any, prompts: Sequence[Prompt]) -> tuple[float, float]:
    """(loss, accuracy) on the answers of prompts, means over prompts of means over tokens."""
    model.eval()
    losses, right = [], []
    for prompt in prompts:
        logits, answer = answer_logits(model, prompt)
        losses.append(float(F.cross_entropy(logits, answer)))
        right.append(float((logits.argmax(-1) == answer).float().mean()))
    return float(np.mean(losses)), float(np.mean(right))


def _target(run: Run, word: str, known: Answered, half: np.ndarray) -> CrossTarget:
    options = AblationOptions()
    found = targets(
        [word], run.space, "neurons",
        lambda measure: usage_of_halves(run, "neurons", half, measure),
        known.categories, high=options.high, low=options.low,
    )  # fmt: skip
    if len(found) != 1:
        names = ", ".join(one.name for one in found)
        raise InputError(f"tune_units: target: expected one, {word} names {len(found)}: {names}")
    return found[0]


def _scored(
    maker: PromptMaker, config: RunConfig, known: Answered, limit: int, longest: int
) -> dict[str, list[Prompt]]:
    """Category -> prompts of its instructions in the other half."""
    other = known.take(np.flatnonzero(known.half == 1))
    other = other.take(choose(other, 2 * limit))  # half of each half, and here is but one
    return {
        name: cut_to(prompts_of(maker, config, other.of(1, name), scope="response"), longest)
        for name in known.categories
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", help="run directory, of a corpus with reference answers")
    parser.add_argument("--target", default="specific:200:MATH")
    parser.add_argument("--random-sets", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--limit", type=int, default=20, help="instructions scored, each category")
    parser.add_argument("--seed", type=int, default=0)
    given = vars(parser.parse_args(argv))
    try:
        table = tune_units(Run(given.pop("run")), given.pop("target"), **given)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    head = ("arm", "neurons", "weights", "category", "instructions", "loss", "accuracy")
    print(render_table(head, [
        (r["arm"], f"{r['neurons']:,}", f"{r['weights']:,}", r["category"], r["instructions"],
         f"{r['loss']:.3f}", f"{r['accuracy']:.3f}")
        for r in table.to_pylist()
    ]))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
