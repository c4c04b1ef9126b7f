"""Models: every causal language model class of transformers, tiny, against transformers itself.

    python benchmarks/models.py                  the table
    python benchmarks/models.py llama gemma2     of some families
    python benchmarks/models.py --engine vllm    the classes that vLLM has, on vLLM
    python benchmarks/models.py --used           the twenty of `used_models`, on both engines
    python benchmarks/models.py --write          write docs/reference/models.md
    python benchmarks/models.py --torchvision F  with the torchvision that pip put into the folder F

How a class is compared: `outcomes`. Each class runs in a process of its own. On vLLM, a model that
reads images too is built whole, as its checkpoints are, and given text; vLLM imports such classes
with torchvision alone.
`bars`: models_equal, models_refused, models_different; of `--used`: models_counted,
models_counted_vllm.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from common import emit, print_card, print_table
from outcomes import (
    COUNTED,
    DIFFERENT,
    PACKED,
    REFUSED,
    SECONDS,
    UNBUILT,
    Outcome,
    class_name,
    isolated,
    try_family,
)
from used_models import USED

DOCS = Path(__file__).resolve().parents[1] / "docs" / "reference" / "models.md"
HEADINGS = {
    "transformers": "## Every causal language model class of transformers",
    "vllm": "## The classes that vLLM has too, on vLLM, against transformers",
}
USED_HEADING = "## Twenty models in use"
USED_TEXT = (
    "Open models that are much in use in 2026, each by a tiny build of its class. The choice is\n"
    "ours; it is no ranking. Of {of}, the transformers engine counts {transformers}, and vLLM on a "
    "CPU {vllm}."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", help="model types (default: all)")
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument("--used", action="store_true", help="the models that are used most")
    parser.add_argument("--write", action="store_true", help=f"write docs/{DOCS.name}")
    parser.add_argument("--page", type=Path, help="write the table to this file")
    parser.add_argument("--outcomes", type=Path, help="keep outcomes in this file (JSON lines), "
                        "and try only families that are not in it")  # fmt: skip
    parser.add_argument("--torchvision", type=Path, metavar="FOLDER", help="where `pip install "
                        "--no-deps --target FOLDER torchvision` put it")  # fmt: skip
    arguments = parser.parse_args()
    if arguments.torchvision:
        begin_with(arguments.torchvision)
    if arguments.used:
        if arguments.families or arguments.page:
            parser.error("--used takes neither families nor --page")
        used(arguments.write, arguments.outcomes)
        return
    if arguments.write and arguments.families:
        parser.error("--write writes all families")
    families = arguments.families or all_families(arguments.engine)
    outcomes = kept_sweep(families, arguments.engine, arguments.outcomes)
    if arguments.write:
        write(outcomes, arguments.engine)
    if arguments.page:
        arguments.page.write_text(render(outcomes, arguments.engine), "utf-8")
    print_card()
    print_table(
        ("family", "result", "counts differ", "near zero", "why"),
        [(o.family, o.result, f"{o.differ:.4%}", f"{o.near:.4%}", o.why[:90]) for o in outcomes],
    )
    emit("models", bars(outcomes))


def used(write_too: bool, file: Path | None) -> None:
    """Try the classes of the models that are used most on both engines; outcomes are kept in a file
    of each engine, whose name `file` begins."""
    types = list(dict.fromkeys(of.model_type for of in USED))
    by_engine = {}
    for engine in HEADINGS:
        kept = file and file.with_name(f"{file.name}.{engine}")
        by_engine[engine] = {o.family: o for o in kept_sweep(types, engine, kept)}
    rows = [
        (of.name, of.model_type, *(by_engine[engine][of.model_type] for engine in HEADINGS))
        for of in USED
    ]
    if write_too:
        write_used(rows)
    print_card()
    print_table(
        ("model", "model type", *HEADINGS, "why not on vllm"),
        [(*row[:2], *(o.result for o in row[2:]), row[3].why[:80]) for row in rows],
    )
    counted = [sum(row[2 + at].result in COUNTED for row in rows) for at in range(2)]
    emit("models", {"models_counted": counted[0], "models_counted_vllm": counted[1]})


def write_used(rows: Sequence[tuple[str, str, Outcome, Outcome]]) -> None:
    """Replace the table of the used models in docs/reference/models.md."""
    text = DOCS.read_text("utf-8")
    before, _, after = text.partition(USED_HEADING)
    counted = [sum(row[2 + at].result in COUNTED for row in rows) for at in range(2)]
    lines = [
        USED_HEADING,
        "",
        USED_TEXT.format(of=len(rows), transformers=counted[0], vllm=counted[1]),
        "",
        "| model | class | transformers engine | vllm engine | why not on vLLM |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | `{a.model}` | {a.result} | {b.result} | {b.why} |"
            for name, _, a, b in rows
        ),
        "",
    ]
    rest = after.partition("\n## ")
    DOCS.write_text(before + "\n".join(lines) + rest[1] + rest[2], "utf-8")


def bars(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many classes came out how."""
    results = [o.result for o in outcomes]
    return {
        "models_equal": sum(results.count(r) for r in COUNTED),
        "models_refused": results.count(REFUSED),
        "models_different": results.count(DIFFERENT),
        "models_not_built": results.count(UNBUILT),
    }


def begin_with(folder: Path) -> None:
    """Run this script anew, its processes too, with the torchvision of a folder on their path.

    PyPI's wheel is built for CUDA; `without_operators` lets what works without it be imported.
    """
    shim = Path(__file__).with_name("without_operators")
    paths = [str(shim), str(folder.resolve()), os.environ.get("PYTHONPATH", "")]
    if os.environ.get("PYTHONPATH", "").split(os.pathsep)[:2] != paths[:2]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def all_families(engine: str) -> list[str]:
    """The model types of an engine's table: all of text that it has."""
    if engine == "transformers":
        return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    from vllm import ModelRegistry

    known = set(ModelRegistry.get_supported_archs())
    return sorted(f for f in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if class_name(f, engine) in known)


def sweep(families: Sequence[str], engine: str = "transformers") -> list[Outcome]:
    """Try each family in a forked process, so that a crash or a hang is the family's own."""
    if engine == "vllm":  # once, instead of once in each process
        for name in ("model_executor.models.registry", "v1.engine.llm_engine"):
            importlib.import_module(f"vllm.{name}")
    outcomes = []
    for family in families:
        try:
            outcomes.append(isolated(SECONDS[engine], _try, family, engine))
        except TimeoutError as error:
            outcomes.append(Outcome(family, "", DIFFERENT, 1.0, why=str(error)))
    return outcomes


def kept_sweep(families: Sequence[str], engine: str, file: Path | None) -> list[Outcome]:
    """`sweep`, with the outcomes kept in a file family by family, so that it may be stopped."""
    if file is None:
        return sweep(families, engine)
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    known = {outcome.family: outcome for outcome in (Outcome(**json.loads(line)) for line in lines)}
    for family in families:
        if family not in known:
            known[family] = sweep([family], engine)[0]
            with file.open("a", encoding="utf-8") as kept:
                kept.write(json.dumps(asdict(known[family])) + "\n")
    return [known[family] for family in families]


def _try(family: str, engine: str) -> Outcome:
    torch.set_num_threads(1)
    return try_family(family, engine)


def write(outcomes: Sequence[Outcome], engine: str) -> None:
    """Replace an engine's table in docs/reference/models.md; the rest is left as it is."""
    text = DOCS.read_text("utf-8")
    start = text.find(HEADINGS[engine])
    before, after = (text, "") if start < 0 else (text[:start], text[start:])
    _, mark, rest = after.partition("\n## ")
    table = render(outcomes, engine)
    DOCS.write_text(before.rstrip("\n") + "\n\n" + table + mark + rest, "utf-8")


def render(outcomes: Sequence[Outcome], engine: str = "transformers") -> str:
    """The heading of an engine's table, what it sums up to, and a row for each family."""
    counts, version = bars(outcomes), importlib.metadata.version("transformers")
    equal = f"{counts['models_equal']} are equal"
    if engine == "transformers":
        packed = sum(o.result == PACKED for o in outcomes)
        alone = counts["models_equal"] - packed
        equal += f": {packed} packed,\n{alone} with one prompt a pass"
    return "\n".join(
        [
            f"{HEADINGS[engine]} {'.'.join(version.split('.')[:2])}",
            "",
            f"Of {len(outcomes)} model types, {equal}. {counts['models_refused']} "
            f"are refused by name, {counts['models_different']} differ.",
            f"{counts['models_not_built']} could not be built tiny, or do not run in transformers.",
            "",
            f"| model type | {engine} engine | why |",
            "|---|---|---|",
            *(f"| {o.family} | {o.result} | {o.why} |" for o in outcomes),
            "",
        ]
    )


if __name__ == "__main__":
    main()
