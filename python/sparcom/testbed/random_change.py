"""A control for tuning: the base model with a random change of the same size.

    python -m sparcom.testbed.random_change --tuned runs/tuned-model --out runs/random-model

Every weight matrix that tuning changed gets Gaussian noise whose norm, as stored, is that of the
tuning's change of it; all else stays. What `sparcom compare` finds in such a model comes from how
large the change is, not from what was learned.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sparcom.errors import InputError
from sparcom.models import resolve_model

CLOSE = 0.02
"""How far the norm of a stored random change may be from that of the tuning's."""
TRIES = 40


def random_change(
    base: str, tuned: str, out: str | Path, *, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Write the randomly changed model with its tokenizer to `out`.

    base, tuned: as `models.resolve_model` takes them, of one architecture.
    Returns parameter -> (norm of tuning's change, norm of the random one), both as stored in the
    tuned model's dtype. Raises InputError if the models differ in their parameters, or in none of
    their weights.

    >>> random_change("default", "runs/tuned-model", "runs/random-model")
    """
    folder = resolve_model(tuned)
    other = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    model = AutoModelForCausalLM.from_pretrained(resolve_model(base), dtype=other.dtype)
    weights, targets = dict(model.named_parameters()), dict(other.named_parameters())
    shapes = [{name: tuple(w.shape) for name, w in each.items()} for each in (weights, targets)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"random_change: {base} and {tuned} have different parameters; expected a model and "
            "its tuned version"
        )
    generator = torch.Generator().manual_seed(seed)
    norms = {}
    with torch.no_grad():
        for name, weight in weights.items():
            norm = _norm(targets[name], weight)
            if norm > 0:
                changed = _changed(name, weight, norm, generator)
                norms[name] = (norm, _norm(changed, weight))
                weight.copy_(changed)
    if not norms:
        raise InputError(f"random_change: {base} and {tuned} have the same weights")
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(folder).save_pretrained(out)
    return norms


def _norm(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first.double() - second.double()).norm())


def _changed(
    name: str, weight: torch.Tensor, norm: float, generator: torch.Generator
) -> torch.Tensor:
    """The weight with noise, in its dtype, so that the stored change has this norm.

    Noise far below the dtype's steps rounds to nothing, so that its scale is found by bisection.
    """
    noise = torch.randn(weight.shape, generator=generator)
    noise /= noise.norm()
    low, high = 0.0, norm
    while _norm((weight.float() + high * noise).to(weight.dtype), weight) < norm:
        low, high = high, 2 * high
    for _ in range(TRIES):
        scale = (low + high) / 2
        changed = (weight.float() + scale * noise).to(weight.dtype)
        found = _norm(changed, weight)
        if abs(found - norm) <= CLOSE * norm:
            return changed
        low, high = (scale, high) if found < norm else (low, scale)
    raise InputError(
        f"random_change: {name}: no random change in {weight.dtype} has the norm {norm:.3g} of "
        f"tuning's, the nearest has {found:.3g}; store the tuned model in float32"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--base", default="default")
    parser.add_argument("--tuned", required=True, help="the tuned model, a folder")
    parser.add_argument("--out", required=True, help="folder of the randomly changed model")
    parser.add_argument("--seed", type=int, default=0)
    given = vars(parser.parse_args(argv))
    try:
        norms = random_change(**given)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    total = [sum(pair[at] ** 2 for pair in norms.values()) ** 0.5 for at in (0, 1)]
    print(
        f"{len(norms)} weights changed, norm {total[1]:.4g} (tuning: {total[0]:.4g}): "
        f"{given['out']}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
