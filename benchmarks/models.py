"""Models: every causal language model class of transformers, tiny, against transformers itself.

    python benchmarks/models.py                  the table
    python benchmarks/models.py llama gemma2     of some families
    python benchmarks/models.py --engine vllm    the classes that vLLM has, on vLLM
    python benchmarks/models.py --used           the twenty of `used_models`, on both engines
    python benchmarks/models.py --write          write docs/reference/models.md
    python benchmarks/models.py --torchvision F  with the torchvision that pip put into the folder F

Each class is built from its own config with random weights (`tiny_configs`), saved, and loaded
twice: by the engine, which proves it or refuses it by name, and by transformers, whose unmodified
modules read each prompt alone with eager attention, in float32. The counts of the two are compared
neuron by neuron and prompt by prompt. Each class runs in a process of its own.

On vLLM, a model that reads images too is built whole, as its checkpoints are, and given text. vLLM
imports such classes with torchvision alone. A class that vLLM computes in bfloat16 alone is no
further from the float32 counts than transformers' own modules in bfloat16 are, `ROUNDING` times.
`bars`: models_equal, models_refused, models_different; of `--used`: models_counted,
models_counted_vllm.
"""

import argparse
import importlib
import importlib.metadata
import json
import multiprocessing
import os
import re
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)
from transformers.utils import logging as transformers_logging

from common import emit, print_card, print_table
from sparcom.components import ComponentSpace
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.engines.base import EngineOptions
from sparcom.engines.load import check_sites, load_engine
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.engines.transformers.sites import find_ffns
from sparcom.errors import SparcomError
from tiny_configs import BFLOAT16, VOCABULARY, tiny_config
from used_models import USED

DOCS = Path(__file__).resolve().parents[1] / "docs" / "reference" / "models.md"
HEADINGS = {
    "transformers": "## Every causal language model class of transformers",
    "vllm": "## The classes that vLLM has too, on vLLM, against transformers",
}
LENGTHS = (1, 2, 7, 20, 33, 12, 60)
ALLOWED = 1e-4  # share of the counts
SECONDS = {"transformers": 240, "vllm": 900}  # for one class, on a busy machine
_NEAR = 1e-5  # a gate of this share of its row's size may change its sign in float32
ROUNDING = 1.25  # vLLM's distance from float32, in those of transformers' own modules
PACKED, ALONE, EQUAL, ROUNDED, REFUSED, UNBUILT, DIFFERENT = (
    "equal, packed", "equal, one prompt a pass", "equal", "equal within bfloat16", "refused",
    "not built", "different",
)  # fmt: skip
COUNTED = (PACKED, ALONE, EQUAL, ROUNDED)
USED_HEADING = "## Twenty models in use"
USED_TEXT = (
    "Open models that are much in use in 2026, each by a tiny build of its class. The choice is\n"
    "ours; it is no ranking. Of {of}, the transformers engine counts {transformers}, and vLLM on a "
    "CPU {vllm}."
)


@dataclass(frozen=True)
class Outcome:
    """What became of one class.

    result: one of the seven above. differ: share of the counts that differ; near: of them, by gates
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


def class_name(family: str, engine: str) -> str:
    """The class of a model type: on vLLM the whole one, if it reads images too."""
    names: Mapping[str, str] = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if engine == "vllm" or family not in names:
        names = {**names, **MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}
    return names.get(family, family)


def sweep(families: Sequence[str], engine: str = "transformers") -> list[Outcome]:
    """Try each family in a forked process, so that a crash or a hang is the family's own."""
    context = multiprocessing.get_context("fork")
    if engine == "vllm":  # once, instead of once in each process
        for name in ("model_executor.models.registry", "v1.engine.llm_engine"):
            importlib.import_module(f"vllm.{name}")
    outcomes = []
    for family in families:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_send, args=(family, engine, theirs))
        process.start()
        theirs.close()
        try:
            found = ours.recv() if ours.poll(SECONDS[engine]) else None
        except EOFError:
            found = None
        if found is None:
            process.kill()
            why = f"the process ended or took over {SECONDS[engine]} s"
            found = Outcome(family, "", DIFFERENT, 1.0, why=why)
        process.join()
        outcomes.append(found)
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


def _send(family: str, engine: str, pipe) -> None:
    torch.set_num_threads(1)
    pipe.send(try_family(family, engine))


def try_family(family: str, engine: str = "transformers") -> Outcome:
    """Build a tiny model of a family, count it, and compare."""
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()
    name = class_name(family, engine)
    on_vllm = engine == "vllm"
    dtype = "bfloat16" if on_vllm and family in BFLOAT16 else "float32"
    with tempfile.TemporaryDirectory() as folder:
        try:
            save_tiny(family, Path(folder), whole=on_vllm, dtype=dtype, for_vllm=on_vllm)
        except Exception as error:  # classes check their configs each in its own way
            return Outcome(family, name, UNBUILT, why=_reason(error, folder))
        if on_vllm:
            return compare(family, name, Path(folder), partial(count_vllm, dtype=dtype), dtype)
        return compare(family, name, Path(folder))


def save_tiny(
    family: str, folder: Path, *, whole: bool = False, dtype: str = "float32", **changes: object
) -> None:
    """Write a tiny random model of a family that runs, its weights as large as a trained one's.

    whole: with its image tower, if its checkpoints have one. changes: of `tiny_config`.
    """
    torch.manual_seed(0)
    config = tiny_config(family, **changes)
    images = family not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or (
        whole and family in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    )
    kind: Any = AutoModelForImageTextToText if images else AutoModelForCausalLM
    model = kind.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, parameter.shape[-1] ** -0.5)
        for name, buffer in model.named_buffers():
            if name.endswith("tid2eid"):  # DeepSeek-V4: which experts a token takes
                experts = torch.rand(len(buffer), config.num_local_experts).argsort(1)
                buffer.copy_(experts[:, : buffer.shape[1]])
        model(input_ids=torch.tensor([make_prompts()[-1].token_ids]), use_cache=False)
    model.to(getattr(torch, dtype)).save_pretrained(folder)


Counts = tuple[ComponentSpace, dict[str, np.ndarray], str, str]
"""Space, counts of each prompt, and how (one of the results) and why so."""


def count_transformers(folder: Path, prompts: Sequence[Prompt]) -> Counts:
    """Counts of the transformers engine; raises InputError if it refuses the model."""
    options = EngineOptions(
        str(folder), dtype="float32", batch_tokens=64, slots=8, threads=1, device="cpu"
    )
    engine = TransformersEngine(options)
    result = PACKED if engine.alone is None else ALONE
    return engine.space, _by_id(engine.count(prompts)), result, engine.alone or ""


def count_vllm(folder: Path, prompts: Sequence[Prompt], dtype: str = "float32") -> Counts:
    """Counts of the vLLM engine; raises SparcomError if it, its proof or a run's plan refuses."""
    from sparcom.engines.transformers.loading import read_model
    from sparcom.engines.vllm.options import VllmOptions

    # vLLM's engine and worker in this process: starting two more takes longer than all the rest.
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(free_port())}  # fmt: skip
    options = VllmOptions(
        str(folder), dtype=dtype, batch_tokens=64, slots=8, threads=1, context=128,
        executor="external_launcher",
    )  # fmt: skip
    planned = read_model(options).space
    engine = load_engine("vllm", options)
    try:
        check_sites(engine, planned)
        return engine.space, _by_id(engine.count(prompts)), EQUAL, ""
    finally:
        engine.close()


def free_port() -> int:
    """A port of this machine that nobody listens to."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _by_id(groups: Iterable[Counted]) -> dict[str, np.ndarray]:
    return {i: row for c in groups for i, row in zip(c.ids, c.neurons, strict=True)}


def compare(
    family: str,
    name: str,
    folder: Path,
    count: Callable[[Path, Sequence[Prompt]], Counts] = count_transformers,
    dtype: str = "float32",
) -> Outcome:
    """Count the model of a folder with an engine and with transformers.

    dtype: in which the engine computes; transformers computes in float32, and in bfloat16 too if
    the engine does, since no two implementations round alike there.
    """
    prompts = make_prompts()
    try:
        space, ours, result, why = count(folder, prompts)
    except SparcomError as error:
        return Outcome(family, name, REFUSED, why=_reason(error, str(folder)))
    compared = differ = near = rounded = 0
    plain = load_plain(folder, torch.float32)
    coarse = None if dtype == "float32" else load_plain(folder, getattr(torch, dtype))
    for prompt in prompts:
        fired, uncertain = plain_counts(plain, space, prompt)
        apart = np.abs(ours[prompt.id] - fired)
        compared += len(apart)
        differ += int((apart > 0).sum())
        near += int(((apart > 0) & (apart <= uncertain)).sum())
        if coarse is not None:
            rounded += int((plain_counts(coarse, space, prompt)[0] != fired).sum())
    allowed = ALLOWED * compared
    if coarse is not None:
        result = ROUNDED
        own, theirs = rounded / compared, differ / compared
        why = f"from float32, {theirs:.2%} of its counts differ; of transformers' own, {own:.2%}"
        allowed += ROUNDING * rounded
    if (differ - near) > allowed:
        result = DIFFERENT
    return Outcome(family, name, result, differ / compared, near / compared, why)


def load_plain(folder: Path, dtype: torch.dtype) -> Any:
    """transformers' own model of a folder, the class that its config names."""
    (name,) = AutoConfig.from_pretrained(folder).architectures
    whole = name in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values()
    kind: Any = AutoModelForImageTextToText if whole else AutoModelForCausalLM
    return kind.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


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

    The gate of a dense or shared FFN is what its activation module takes in, or what its projection
    puts out if it has none; those of experts are a product of what they take in with their weights.
    """
    gates: dict[tuple[int, int], torch.Tensor] = {}
    hooks = []
    for at, ffn in enumerate(find_ffns(model)):

        def dense(_, args, at=at) -> None:
            gates[at, 0] = args[0].reshape(-1, args[0].shape[-1])

        def projected(_, args, output, at=at) -> None:
            gates[at, 0] = output.reshape(-1, output.shape[-1])[:, : space.sites[at].width]

        def routed(module, args, at=at) -> None:
            hidden, ids = args[0].reshape(-1, args[0].shape[-1]), args[1]
            name, width = "gate_up_proj" if module.has_gate else "up_proj", space.sites[at].width
            rows = slice(width) if module.is_concatenated else slice(None, None, 2)
            for expert in ids.unique().tolist():
                weight = getattr(module, name)[expert]
                weight = weight.T if module.is_transposed else weight
                bias = getattr(module, f"{name}_bias")[expert][rows] if module.has_bias else None
                mine = (ids == expert).any(1)
                gates[at, expert] = F.linear(hidden[mine], weight[rows], bias)

        def scaled(module, args, at=at) -> None:
            """Llama 4: every expert has every token, times a weight that is 0 if not chosen."""
            taken = args[0].view(len(module.gate_up_proj), -1, args[0].shape[-1])
            for expert, weight in enumerate(module.gate_up_proj):
                mine = taken[expert][taken[expert].any(1)]
                gates[at, expert] = (mine @ weight)[:, : space.sites[at].width]

        if ffn.form == "scaled":
            hooks.append(ffn.module.experts.register_forward_pre_hook(scaled))
        elif ffn.form == "routed":
            hooks.append(ffn.module.register_forward_pre_hook(routed))
        elif isinstance(act := getattr(ffn.module, ffn.act or "forward"), torch.nn.Module):
            hooks.append(act.register_forward_pre_hook(dense))
        else:
            first = getattr(ffn.module, ffn.parts[0])
            hooks.append(first.register_forward_hook(projected))
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
