"""`sparcom attribute RUN`: what every neuron adds to the likelihood of the reference answers."""

import argparse
from typing import Any

from sparcom.attribution.rules import RULES

_BOTH = "both"
_SHOWN = 3


def add_attribute(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    given = parser.add_argument
    given("run", help="run directory, of a corpus with reference answers")
    given("--rule", choices=(*RULES, _BOTH), default=_BOTH,
          help="attribution: gradient times activation; relp: relevance; each takes its own pass "
          "(default: both)")  # fmt: skip
    given("--limit", type=int, default=20,
          help="instructions of each category, clusters in turn; 0: all (default: 20)")  # fmt: skip
    given("--answer-tokens", type=int, default=32, metavar="N",
          help="first tokens of each answer whose likelihood is attributed; 0: all "
          "(default: 32)")  # fmt: skip
    given("--dtype", choices=("bfloat16", "float16", "float32"), help="(default: the run's)")
    given("--overwrite", action="store_true",
          help="replace an attribution with other options; without it, one that was stopped is "
          "finished")  # fmt: skip
    given("--cpus", type=int, dest="threads", help="CPU threads (default: all cores)")


def attribute_command(arguments: argparse.Namespace) -> tuple[Any, int]:
    """Attribute, store, and show the strongest neurons of each category."""
    from tqdm import tqdm

    from sparcom.attribution.attribute import AttributionOptions, attribute
    from sparcom.store import Run

    for name in ("limit", "answer_tokens"):
        if getattr(arguments, name) == 0:
            setattr(arguments, name, None)
    options = AttributionOptions(
        rules=RULES if arguments.rule == _BOTH else (arguments.rule,),
        limit=arguments.limit,
        answer_tokens=arguments.answer_tokens,
        dtype=arguments.dtype,
        threads=arguments.threads,
    )
    with tqdm(unit="instruction", disable=not arguments.progress) as bar:

        def progress(done: int, planned: int) -> None:
            bar.total = planned
            bar.update(done - bar.n)

        found = attribute(
            Run(arguments.run), options, overwrite=arguments.overwrite, progress=progress
        )
    rows = _rows(found)
    if arguments.json:
        return {"rows": rows}, 0
    return _render(rows, arguments.run, found.rules[0]), 0


def _rows(found: Any) -> list[dict[str, Any]]:
    """One row for each rule and category."""
    import numpy as np

    from sparcom.tracing.units import name_of

    rows = []
    for rule in found.rules:
        for category, values in found.means(rule).items():
            of = np.array(found.categories) == category
            best = np.argsort(-values, kind="stable")[:_SHOWN].tolist()
            rows.append({
                "rule": rule,
                "category": category,
                "instructions": int(found.instructions[of].sum()),
                "clusters": len({c for c, at in zip(found.clusters, of, strict=True) if at}),
                "highest": [
                    {"unit": name_of(found.space, n), "value": float(values[n])} for n in best
                ],
            })  # fmt: skip
    return rows


def _render(rows: list[dict[str, Any]], location: str, rule: str) -> str:
    from sparcom.formatting import render_table

    head = ("rule", "category", "instructions", "clusters",
            "highest, nats per token of the answer")  # fmt: skip
    body = [
        (
            row["rule"], row["category"], f"{row['instructions']:,}", f"{row['clusters']:,}",
            ", ".join(f"{one['unit']} {one['value']:+.3g}" for one in row["highest"]),
        )
        for row in rows
    ]  # fmt: skip
    return "\n".join([
        render_table(head, body),
        "",
        f"stored: {location}/attribution; silence what matters most with sparcom ablate {location} "
        f"--target rank:{rule}:20, or compare it with what fires specifically: sparcom report "
        f"{location}",
    ])  # fmt: skip
