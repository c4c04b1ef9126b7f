"""`sparcom ablate RUN`: what the model loses without a set of components."""

import argparse
from typing import Any

from sparcom.cli.renamed import add_renamed


def add_ablate(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    given = parser.add_argument
    given("run", help="run directory, of a corpus with reference answers")
    given("--target", action="append", dest="targets", metavar="TARGET",
          help="general, unique[:CATEGORY], top:K, specific:K[:CATEGORY], or a .csv or .parquet "
          "file; may be given several times (default: general)")  # fmt: skip
    add_renamed(parser, "--set", "--target")
    given("--family", choices=("neurons", "experts"), default="neurons")
    given("--how", choices=("zero", "mean", "route"), default="zero",
          help="ablate by zero, by the mean over all tokens, or (experts) by routing around them "
          "(default: zero)")  # fmt: skip
    given("--draws", type=int, default=5, help="matched random sets for each target (default: 5)")
    given("--limit", type=int, help="instructions of each category (default: those of the run)")
    given("--high", type=float, default=0.5, help="prevalence of general and unique (default: 0.5)")
    given("--low", type=float, default=0.1, help="prevalence elsewhere, of unique (default: 0.1)")
    given("--seed", type=int, default=0)
    given("--engine", choices=("transformers", "vllm"), default="transformers",
          help="what runs the model, whichever engine counted; vllm does not route around experts "
          "(default: transformers)")  # fmt: skip
    given(
        "--cpus", type=int, dest="threads", help="CPU threads, of each worker (default: all cores)"
    )


def ablate_command(arguments: argparse.Namespace) -> tuple[Any, int]:
    """Ablate targets, measure losses, write analysis/ablation.parquet."""
    from tqdm import tqdm

    from sparcom.ablation.ablate import ablate
    from sparcom.ablation.options import AblationOptions
    from sparcom.store import Run

    names = ("family", "how", "draws", "limit", "high", "low", "seed", "engine", "threads")
    given = {name: getattr(arguments, name) for name in names}
    if arguments.targets:
        given["targets"] = tuple(arguments.targets)
    with tqdm(unit="pass", disable=not arguments.progress) as bar:

        def tick() -> None:
            bar.update()

        result = ablate(Run(arguments.run), AblationOptions(**given), tick)
    if arguments.json:
        return {"rows": result.table().to_pylist(), "warnings": list(result.warnings)}, 0
    return _render(result, arguments.run), 0


def _render(result: Any, location: str) -> str:
    from sparcom.formatting import render_table
    from sparcom.report.format import interval, number

    lines = []
    for target, effects, beyonds in zip(result.targets, result.effect, result.beyond, strict=True):
        rows = [
            [
                name,
                number(loss, 4),
                number(effect.value, 4, signed=True),
                interval(effect.low, effect.high, 4, signed=True),
                number(effect.chance, 4, signed=True),
                interval(beyond.low, beyond.high, 4, signed=True),
            ]
            for name, loss, effect, beyond in zip(
                result.categories, result.loss, effects, beyonds, strict=True
            )
        ]
        head = ["measured", "loss", "effect", "95 % interval", "random", "beyond random"]
        lines += [f"{target.name}: {len(target.index)} {target.family} ablated ({result.how})"]
        lines += [render_table(head, rows), ""]
    lines += [f"warning: {text}" for text in result.warnings]
    return "\n".join([*lines, f"table: {location}/analysis/ablation.parquet"])
