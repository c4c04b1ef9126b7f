"""What becomes of a model class: a tiny build of it, counted by an engine and plainly.

Each class is built from its own config with random weights (`tiny_configs`), saved, and loaded
twice: by the engine, which proves it or refuses it by name, and by transformers, whose unmodified
modules read each prompt alone with eager attention, in float32. The counts of the two are compared
neuron by neuron and prompt by prompt.

vLLM computes the gated delta rule on a CPU in bfloat16 alone. A model that has it is compared in
float32 with a plain rule in the place of that kernel (`plain_delta_rule`), by the same bar; and in
bfloat16 the kernel itself, on what it takes in there, is compared with the plain rule, token by
token, by the bar of the transformers engine's own proof in bfloat16.
"""

import multiprocessing
import os
import re
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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

from sparcom.components import ComponentSpace
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.engines.base import EngineOptions
from sparcom.engines.load import check_sites, load_engine
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.engines.transformers.proof.compare import tolerance
from sparcom.engines.transformers.sites import find_ffns
from sparcom.errors import SparcomError
from tiny_configs import BFLOAT16, VOCABULARY, tiny_config, write_as_on_the_hub

LENGTHS = (1, 2, 7, 20, 33, 12, 60)
ALLOWED = 1e-4  # share of the counts
SECONDS = {"transformers": 240, "vllm": 900}  # for one class, on a busy machine
_NEAR = 1e-5  # a gate of this share of its row's size may change its sign in float32
PACKED, ALONE, EQUAL, ROUNDED, REFUSED, UNBUILT, DIFFERENT = (
    "equal, packed", "equal, one prompt a pass", "equal", "equal but for one kernel", "refused",
    "not built", "different",
)  # fmt: skip
COUNTED = (PACKED, ALONE, EQUAL, ROUNDED)


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


def class_name(family: str, engine: str) -> str:
    """The class of a model type: on vLLM the whole one, if it reads images too."""
    names: Mapping[str, str] = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if engine == "vllm" or family not in names:
        names = {**names, **MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}
    return names.get(family, family)


def isolated(seconds: float, work: Callable[..., Any], *arguments: object) -> Any:
    """What a function returns or raises in a forked process of its own.

    Raises TimeoutError if the process dies, or takes longer.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def run() -> None:
        try:
            theirs.send((work(*arguments), None))
        except Exception as error:  # whatever it is, the caller raises it
            theirs.send((None, error))

    process = context.Process(target=run)
    process.start()
    theirs.close()
    try:
        found, error = ours.recv() if ours.poll(seconds) else (None, None)
    except EOFError:
        found = error = None
    if found is None and error is None:
        process.kill()
        error = TimeoutError(f"the process ended or took over {seconds} s")
    process.join()
    if error is not None:
        raise error
    return found


def try_family(family: str, engine: str = "transformers") -> Outcome:
    """Build a tiny model of a family, count it, and compare."""
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()
    name, on_vllm = class_name(family, engine), engine == "vllm"
    with tempfile.TemporaryDirectory() as folder:
        try:
            save_tiny(family, Path(folder), whole=on_vllm, for_vllm=on_vllm)
            if on_vllm:
                write_as_on_the_hub(Path(folder))
        except Exception as error:  # classes check their configs each in its own way
            return Outcome(family, name, UNBUILT, why=_reason(error, folder))
        if not on_vllm:
            return compare(family, name, Path(folder))
        if family in BFLOAT16:
            return compare_but_for_one_kernel(family, name, Path(folder))
        return compare(family, name, Path(folder), partial(alone, count_vllm))


def alone(count: Callable[..., Any], *arguments: object) -> Any:
    """A count by vLLM in a process of its own: for the classes that vLLM takes from transformers it
    changes them, and the plain model is to be transformers' own."""
    return isolated(SECONDS["vllm"] / 2, count, *arguments)


def save_tiny(family: str, folder: Path, *, whole: bool = False, **changes: object) -> None:
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
    model.save_pretrained(folder)


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


def count_with_plain_rule(folder: Path, prompts: Sequence[Prompt]) -> Counts:
    """As `count_vllm`, in float32, with a plain delta rule in the place of vLLM's kernel."""
    import plain_delta_rule

    plain_delta_rule.take_the_kernels_place()
    return count_vllm(folder, prompts)


def kernel_apart(folder: Path, prompts: Sequence[Prompt]) -> float:
    """How far vLLM's delta rule in bfloat16 is from a plain one, as a share of a token's output."""
    import plain_delta_rule

    apart = plain_delta_rule.watch_the_kernel()
    count_vllm(folder, prompts, "bfloat16")
    return max(apart)


def compare(
    family: str,
    name: str,
    folder: Path,
    count: Callable[[Path, Sequence[Prompt]], Counts] = count_transformers,
) -> Outcome:
    """Count the model of a folder with an engine and with transformers, both in float32."""
    prompts = make_prompts()
    try:
        space, ours, result, why = count(folder, prompts)
    except SparcomError as error:
        return Outcome(family, name, REFUSED, why=_reason(error, str(folder)))
    compared = differ = near = 0
    plain = load_plain(folder)
    for prompt in prompts:
        fired, uncertain = plain_counts(plain, space, prompt)
        apart = np.abs(ours[prompt.id] - fired)
        compared += len(apart)
        differ += int((apart > 0).sum())
        near += int(((apart > 0) & (apart <= uncertain)).sum())
    if (differ - near) > ALLOWED * compared:
        result = DIFFERENT
    return Outcome(family, name, result, differ / compared, near / compared, why)


def compare_but_for_one_kernel(family: str, name: str, folder: Path) -> Outcome:
    """As `compare`, on vLLM, for a model whose delta rule vLLM computes in bfloat16 alone.

    Two runs, each in a process of its own: in float32 without the kernel, in bfloat16 with it.
    """
    outcome = compare(family, name, folder, partial(alone, count_with_plain_rule))
    if outcome.result != EQUAL:
        return outcome
    try:
        apart, most = alone(kernel_apart, folder, make_prompts()), tolerance(torch.bfloat16)
    except SparcomError as error:
        return replace(outcome, result=REFUSED, why=_reason(error, str(folder)))
    return replace(
        outcome,
        result=ROUNDED if apart <= most else DIFFERENT,
        why=f"equal in float32 with a plain delta rule in the kernel's place; the kernel, in "
        f"bfloat16, is at most {apart:.1%} of a token's size from that rule (allowed: {most:.1%})",
    )


def load_plain(folder: Path) -> Any:
    """transformers' own model of a folder in float32, the class that its config names."""
    (name,) = AutoConfig.from_pretrained(folder).architectures
    whole = name in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values()
    kind: Any = AutoModelForImageTextToText if whole else AutoModelForCausalLM
    return kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


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
