"""Models: every causal language model class of transformers, tiny, against transformers itself.

    python benchmarks/models.py                  the table
    python benchmarks/models.py llama gemma2     of some families
    python benchmarks/models.py --write          write docs/reference/models.md

Each class is built from its own config with random weights (`tiny_configs`), saved, and loaded
twice: by the engine, which proves it or refuses it by name, and by transformers, whose unmodified
modules read each prompt alone with eager attention, in float32. The counts of the two are compared
cell by cell (a cell: one neuron in one prompt). Each class runs in a process of its own.
`bars`: models_equal, models_refused, models_different.
"""

import argparse
import multiprocessing
import re
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from common import emit, print_card, print_table
from sparcom.components import ComponentSpace
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.base import EngineOptions
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.engines.transformers.sites import find_ffns
from sparcom.errors import InputError
from tiny_configs import VOCABULARY, tiny_config

DOCS = Path(__file__).resolve().parents[1] / "docs" / "reference" / "models.md"
HEADING = "## Every causal language model class of transformers"
LENGTHS = (1, 2, 7, 20, 33, 12, 60)
ALLOWED = 1e-4  # share of cells
SECONDS = 60  # for one class
_NEAR = 1e-5  # a gate of this share of its row's size may change its sign in float32
PACKED, ALONE, REFUSED, UNBUILT, DIFFERENT = (
    "equal, packed", "equal, one prompt a pass", "refused", "not built", "different"
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of one class.

    result: one of the five above. differ: share of cells that differ; near: of them, by gates
    within rounding of zero. why: the refusal, or why prompts run alone.
    """

    family: str
    model: str
    result: str
    differ: float = 0.0
    near: float = 0.0
    why: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", help="model types (default: all)")
    parser.add_argument("--write", action="store_true", help=f"write docs/{DOCS.name}")
    parser.add_argument("--page", type=Path, help="write the table to this file")
    arguments = parser.parse_args()
    if arguments.write and arguments.families:
        parser.error("--write writes all families")
    outcomes = sweep(arguments.families or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
    if arguments.write:
        write(outcomes)
    if arguments.page:
        arguments.page.write_text(render(outcomes), "utf-8")
    print_card()
    print_table(
        ("family", "result", "cells differ", "near zero", "why"),
        [(o.family, o.result, f"{o.differ:.4%}", f"{o.near:.4%}", o.why[:90]) for o in outcomes],
    )
    emit("models", bars(outcomes))


def bars(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many classes came out how."""
    results = [o.result for o in outcomes]
    return {
        "models_equal": results.count(PACKED) + results.count(ALONE),
        "models_refused": results.count(REFUSED),
        "models_different": results.count(DIFFERENT),
        "models_not_built": results.count(UNBUILT),
    }


def sweep(families: Sequence[str]) -> list[Outcome]:
    """Try each family in a forked process, so that a crash or a hang is the family's own."""
    context = multiprocessing.get_context("fork")
    outcomes = []
    for family in families:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_send, args=(family, theirs))
        process.start()
        theirs.close()
        try:
            found = ours.recv() if ours.poll(SECONDS) else None
        except EOFError:
            found = None
        if found is None:
            process.kill()
            why = f"the process ended or took over {SECONDS} s"
            found = Outcome(family, "", DIFFERENT, 1.0, why=why)
        process.join()
        outcomes.append(found)
    return outcomes


def _send(family: str, pipe) -> None:
    torch.set_num_threads(1)
    pipe.send(try_family(family))


def try_family(family: str) -> Outcome:
    """Build a tiny model of a family, count it, and compare."""
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(family, family)
    with tempfile.TemporaryDirectory() as folder:
        try:
            save_tiny(family, Path(folder))
        except Exception as error:  # classes check their configs each in its own way
            return Outcome(family, name, UNBUILT, why=_reason(error, folder))
        return compare(family, name, Path(folder))


def save_tiny(family: str, folder: Path, **changes: object) -> None:
    """Write a tiny random model of a family that runs, its weights as large as a trained one's."""
    torch.manual_seed(0)
    config = tiny_config(family, **changes)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, parameter.shape[-1] ** -0.5)
        model(input_ids=torch.tensor([make_prompts()[-1].token_ids]), use_cache=False)
    model.save_pretrained(folder)


def compare(family: str, name: str, folder: Path) -> Outcome:
    """Count the model of a folder with the engine and with transformers."""
    options = EngineOptions(
        str(folder), dtype="float32", batch_tokens=64, slots=8, threads=1, device="cpu"
    )
    prompts = make_prompts()
    try:
        engine = TransformersEngine(options)
        ours = {
            i: row for c in engine.count(prompts) for i, row in zip(c.ids, c.neurons, strict=True)
        }
    except InputError as error:
        return Outcome(family, name, REFUSED, why=_reason(error, str(folder)))
    cells = differ = near = 0
    plain = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    for prompt in prompts:
        fired, uncertain = plain_counts(plain, engine.space, prompt)
        apart = np.abs(ours[prompt.id] - fired)
        cells += len(apart)
        differ += int((apart > 0).sum())
        near += int(((apart > 0) & (apart <= uncertain)).sum())
    equal = (differ - near) <= ALLOWED * cells
    result = DIFFERENT if not equal else PACKED if engine.alone is None else ALONE
    return Outcome(family, name, result, differ / cells, near / cells, engine.alone or "")


def make_prompts() -> list[Prompt]:
    """Prompts of random tokens, none of them special."""
    generator = torch.Generator().manual_seed(1)
    prompts = []
    for at, length in enumerate(LENGTHS):
        ids = torch.randint(3, VOCABULARY, (length,), generator=generator)
        prompts.append(Prompt(f"p{at}", tuple(ids.tolist()), ((0, length),)))
    return prompts


@torch.inference_mode()
def plain_counts(model, space: ComponentSpace, prompt: Prompt) -> tuple[np.ndarray, np.ndarray]:
    """([neurons] counts, [neurons] gates near zero) of one prompt alone, by plain hooks.

    The gate of a dense or shared FFN is what its activation module takes in; those of experts are a
    product of what they take in with their weights.
    """
    gates: dict[tuple[int, int], torch.Tensor] = {}
    hooks = []
    for at, ffn in enumerate(find_ffns(model)):

        def dense(_, args, at=at) -> None:
            gates[at, 0] = args[0].reshape(-1, args[0].shape[-1])

        def routed(module, args, at=at) -> None:
            hidden, ids = args[0].reshape(-1, args[0].shape[-1]), args[1]
            for expert in ids.unique().tolist():
                weight = (module.gate_up_proj if module.has_gate else module.up_proj)[expert]
                weight = weight.T if module.is_transposed else weight
                mine = (ids == expert).any(1)
                gates[at, expert] = F.linear(hidden[mine], weight[: space.sites[at].width])

        module, hook = ffn.module, routed
        if ffn.form != "routed":
            module, hook = getattr(ffn.module, ffn.act), dense
        hooks.append(module.register_forward_pre_hook(hook))
    model(input_ids=torch.tensor([prompt.token_ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    fired, near = (np.zeros(space.neurons, np.int64) for _ in range(2))
    for (at, expert), gate in gates.items():
        start = int(space.neuron_offsets[at]) + expert * space.sites[at].width
        size = gate.square().mean(1, keepdim=True).sqrt()
        fired[start : start + gate.shape[1]] += (gate > 0).sum(0).numpy()
        near[start : start + gate.shape[1]] += (gate.abs() <= _NEAR * size).sum(0).numpy()
    return fired, near


def _reason(error: Exception, folder: str) -> str:
    """The first line of an error, without folder and measured numbers."""
    text = (str(error).strip().splitlines() or [""])[0]
    text = re.sub(r"^model \S+: ", "", text.replace(folder, "FOLDER"))
    text = re.sub(r" by [\d.e+]+ % of its size.*", "", text)
    text = re.sub(r"; supported are .*|, so the model is not supported$|; try --engine.*", "", text)
    return text.replace("|", "\\|")


def write(outcomes: Sequence[Outcome]) -> None:
    """Replace the table of docs/reference/models.md; the text above it is written by hand."""
    text, _, _ = DOCS.read_text("utf-8").partition(HEADING)
    DOCS.write_text(text + render(outcomes), "utf-8")


def render(outcomes: Sequence[Outcome]) -> str:
    """The heading of the table, what it sums up to, and a row for each family."""
    counts = bars(outcomes)
    packed = sum(o.result == PACKED for o in outcomes)
    version = ".".join(transformers.__version__.split(".")[:2])
    return "\n".join(
        [
            f"{HEADING} {version}",
            "",
            f"Of {len(outcomes)} model types, {counts['models_equal']} are equal: {packed} packed,",
            f"{counts['models_equal'] - packed} with one prompt a pass. {counts['models_refused']} "
            f"are refused by name, {counts['models_different']} differ.",
            f"{counts['models_not_built']} could not be built tiny, or do not run in transformers.",
            "",
            "| model type | transformers engine | why |",
            "|---|---|---|",
            *(f"| {o.family} | {o.result} | {o.why} |" for o in outcomes),
            "",
        ]
    )


if __name__ == "__main__":
    main()
