"""Fine-tunes a model on a corpus' reference answers: a real tuned model beside its base.

    python -m sparcom.testbed.fine_tune --corpus corpus.jsonl --out runs/tuned-model --steps 60

The FFNs of all layers are trained, or the rows and columns of a list of neurons alone (`--units`),
with AdamW at a constant rate, on the answers alone (the prompt is read, not learned); everything
else is frozen. Base and tuned model keep one tokenizer and one template, so that `sparcom compare`
accepts their runs. A fixed seed draws the order of the instructions: one machine always gives the
same weights.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from sparcom.api.units import Units, to_components
from sparcom.corpus.opening import load_corpus
from sparcom.corpus.prompts.chat_template import make_template
from sparcom.corpus.prompts.prompts import Prompt, make_prompts
from sparcom.engines.transformers.sites import find_ffns, space_of
from sparcom.errors import InputError
from sparcom.models import resolve_model
from sparcom.shown_steps import shown_steps
from sparcom.testbed.masks import train_only, weights_of_units


def fine_tune(
    model: str,
    corpus: str,
    out: str | Path,
    *,
    categories: Sequence[str] | None = None,
    steps: int = 60,
    batch: int = 4,
    rate: float = 1e-4,
    longest: int = 256,
    seed: int = 0,
    units: Units = None,
) -> list[float]:
    """Train, write the tuned model with its tokenizer to `out`, and return the loss of each step.

    model: as `models.resolve_model` takes it. categories: those trained on; None: all.
    batch: instructions a step. longest: prompts and answers are cut to so many tokens.
    units: the neurons whose rows and columns are trained, in any form that `Model.ablated` takes;
        None: all weights of all FFNs, routers among them.
    Raises InputError where no instruction has a reference answer, or the model lacks a unit.

    >>> fine_tune("default", "hexainst", "runs/tuned-isns", units="math.csv")
    """
    folder = resolve_model(model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = _answers(corpus, categories, tokenizer, longest)
    tuned = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if units is None:
        trained = whole_ffns(tuned)
    else:
        found = to_components(units, space_of(find_ffns(tuned)))
        trained = train_only(tuned, weights_of_units(tuned, found))
    losses = train(tuned, trained, prompts, steps=steps, batch=batch, rate=rate, seed=seed)
    tuned.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return losses


def whole_ffns(model: Any) -> list[torch.nn.Parameter]:
    """Freeze a model but for its FFNs; returns their parameters."""
    trained = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".mlp." in name)
        if parameter.requires_grad:
            trained.append(parameter)
    if not trained:
        raise InputError(f"fine_tune: {type(model).__name__} has no parameters named `mlp`")
    return trained


def train(
    model: Any,
    trained: Sequence[torch.nn.Parameter],
    prompts: Sequence[Prompt],
    *,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
) -> list[float]:
    """Train some parameters on the counted tokens of prompts; returns the loss of each step.

    prompts: each with one counted span, its answer.
    """
    torch.manual_seed(seed)
    model.train()
    optimiser = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    losses = []
    for chosen in shown_steps(_batches(len(prompts), batch, steps, seed), steps):
        loss = torch.stack([_loss(model, prompts[i]) for i in chosen]).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


def _answers(
    corpus: str, categories: Sequence[str] | None, tokenizer: Any, longest: int
) -> list[Prompt]:
    items = [i for i in load_corpus(corpus, None) if i.reference]
    if categories is not None:
        items = [i for i in items if i.category in categories]
    if not items:
        raise InputError(
            f"fine_tune: corpus {corpus}: no instruction (of these categories) has a reference "
            "answer; add the field `reference`"
        )
    template = make_template("model" if tokenizer.chat_template else "plain", tokenizer)
    made = make_prompts(items, tokenizer, template=template, scope="response")
    return cut_to(made, longest)


def cut_to(prompts: Sequence[Prompt], longest: int) -> list[Prompt]:
    """Prompts cut to so many tokens; those whose answer begins later are left out."""
    cut = [
        Prompt(p.id, p.token_ids[:longest], tuple((a, min(b, longest)) for a, b in p.counted))
        for p in prompts
        if p.counted[0][0] < longest
    ]
    if not cut:
        raise InputError(f"fine_tune: every prompt is longer than {longest} tokens")
    return cut


def _batches(n: int, batch: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """`steps` batches out of shuffled rounds over all."""
    rng = np.random.default_rng(seed)
    rounds = -(-steps * batch // n)
    order = np.concatenate([rng.permutation(n) for _ in range(rounds)])
    for step in range(steps):
        yield order[step * batch : (step + 1) * batch]


def _loss(model: Any, prompt: Prompt) -> torch.Tensor:
    """Mean negative log-likelihood of the answer's tokens."""
    return F.cross_entropy(*answer_logits(model, prompt))


def answer_logits(model: Any, prompt: Prompt) -> tuple[torch.Tensor, torch.Tensor]:
    """([tokens, vocabulary] logits before each token of the answer, [tokens] the answer)."""
    ids = torch.tensor([prompt.token_ids])
    ((start, stop),) = prompt.counted
    logits = model(input_ids=ids, use_cache=False).logits[0]
    return logits[start - 1 : stop - 1], ids[0, start:stop]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--corpus", required=True, help="a corpus with reference answers")
    parser.add_argument("--out", required=True, help="folder of the tuned model")
    parser.add_argument("--category", action="append", dest="categories")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--units", metavar="FILE", help="a list of neurons (.csv, .parquet): only "
                        "their rows of gate and up and columns of down are trained")  # fmt: skip
    given = vars(parser.parse_args(argv))
    try:
        losses = fine_tune(given.pop("model"), given.pop("corpus"), given["out"],
                           **{k: v for k, v in given.items() if k != "out"})  # fmt: skip
    except InputError as error:
        print(f"fine_tune: {error}", file=sys.stderr)
        return 2
    first, last = losses[: len(losses) // 4 or 1], losses[-(len(losses) // 4 or 1) :]
    print(
        f"loss {np.mean(first):.3f} -> {np.mean(last):.3f} in {len(losses)} steps: {given['out']}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
