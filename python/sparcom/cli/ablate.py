"""`sparcom ablate RUN`: what the model loses without a set of components."""

import argparse
import itertools
from typing import Any

from sparcom.cli.renamed import add_renamed


def add_ablate(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    given = parser.add_argument
    given("run", help="run directory, of a corpus with reference answers")
    given("--target", action="append", dest="targets", metavar="TARGET",
          help="general, unique[:CATEGORY], top:K, specific:K[:CATEGORY], "
          "rank:MEASURE:K[:CATEGORY] (prevalence, attribution or relp; see sparcom attribute), "
          "or a .csv or .parquet file[:CATEGORY]; may be given several times (default: "
          "specific:20, each category's)")  # fmt: skip
    add_renamed(parser, "--set", "--target")
    given("--family", choices=("neurons", "experts"), default="neurons")
    given("--how", default="zero", metavar="HOW",
          help="zero; mean: the mean over all tokens; scale:X: outputs times X, or scale:X,Y,... "
          "for several doses; negative, positive: zero where the gate is so; resample: taken from "
          "an instruction of another category; of experts, boost:X: X added to their router's "
          "logits; route: routed around (default: zero)")  # fmt: skip
    given("--random-sets", type=int, metavar="N",
          help="matched random sets for each target (default: 99, or as many as p = 0.05 needs "
          "after the correction over the targets)")  # fmt: skip
    add_renamed(parser, "--draws", "--random-sets")
    given("--no-early-stop", action="store_false", dest="early",
          help="draw all random sets, also where the answer is plain")  # fmt: skip
    given("--plain-sets", type=int, default=3, metavar="N",
          help="for each target that matters, random sets enlarged until plain text suffers as "
          "much (default: 3)")  # fmt: skip
    given("--limit", type=int, default=10,
          help="instructions of each category that are scored; 0: all (default: 10)")  # fmt: skip
    given("--answer-tokens", type=int, default=32, metavar="N",
          help="first tokens of each answer that are scored; 0: all (default: 32)")  # fmt: skip
    given("--behaviour", type=int, default=0, metavar="N",
          help="score answers that the model writes, of at most N tokens, instead of the loss "
          "(MATH, QA: exact match; CLS: label; GEN, SUM: constraints; CODE: "
          "--run-code)")  # fmt: skip
    given("--run-code", action="store_true",
          help="run what the model writes for CODE, in a sandbox without network")  # fmt: skip
    given("--aliases", metavar="FILE",
          help="CSV with the columns id and alias: further right answers")  # fmt: skip
    given("--high", type=float, default=0.5, help="prevalence of general and unique (default: 0.5)")
    given("--low", type=float, default=0.1, help="prevalence elsewhere, of unique (default: 0.1)")
    given("--seed", type=int, default=0)
    given("--engine", choices=("transformers", "vllm"), default="transformers",
          help="what runs the model, whichever engine counted (default: transformers)")  # fmt: skip
    given(
        "--cpus", type=int, dest="threads", help="CPU threads, of each worker (default: all cores)"
    )


def ablate_command(arguments: argparse.Namespace) -> tuple[Any, int]:
    """Ablate targets, measure losses, write analysis/ablation.parquet."""
    from sparcom.ablation.ablate import ablate
    from sparcom.ablation.options import AblationOptions
    from sparcom.shown_steps import shown_bar
    from sparcom.store import Run

    names = ("family", "how", "random_sets", "early", "plain_sets", "high", "low", "seed",
             "engine",
             "threads", "behaviour", "run_code", "aliases")  # fmt: skip
    given = {name: getattr(arguments, name) for name in names}
    given |= {name: getattr(arguments, name) or None for name in ("limit", "answer_tokens")}
    if arguments.targets:
        given["targets"] = tuple(arguments.targets)
    with shown_bar("ablate", None, "set", hidden=arguments.json) as bar:

        def progress(done: int, planned: int) -> None:
            bar.total = planned
            bar.update(done - bar.n)

        result = ablate(Run(arguments.run), AblationOptions(**given), progress)
    if arguments.json:
        return {"rows": result.table().to_pylist(), "warnings": list(result.warnings)}, 0
    return _render(result, arguments.run), 0


def _render(result: Any, location: str) -> str:
    from sparcom.formatting import render_table
    from sparcom.report.ablation_text import (
        BALANCE_HEAD,
        balance_of,
        by_dose,
        figures_of,
        head_of,
        sentences,
        what_is_done,
    )

    rows = result.table().to_pylist()
    of = {target.name: by_dose(rows, target.name) for target in result.targets}
    lines = [render_table(BALANCE_HEAD, [balance_of(doses[0][0]) for doses in of.values()]), ""]
    for one in itertools.chain.from_iterable(of.values()):
        first = one[0]
        lines += [f"{first['target']}: {first['size']} {first['family']} {what_is_done(first)}"]
        lines += [render_table(("measured", *head_of(first)), figures_of(one))]
        lines += [*sentences(one), ""]
    lines += [f"warning: {text}" for text in result.warnings]
    name = "behaviour" if result.metrics else "ablation"
    return "\n".join([*lines, f"table: {location}/analysis/{name}.parquet"])
