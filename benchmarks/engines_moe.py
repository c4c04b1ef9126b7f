"""Mixtures of experts: tokens per second with counting against each engine's own experts.

    python benchmarks/engines.py --moe
    python benchmarks/engines.py --moe --engine vllm

A Qwen2-MoE with random weights (8 layers, hidden 512, 60 experts of width 352, top-4, shared expert
1408) reads the same prompts with and without counting, alternately, at several numbers of rows per
pass. Without counting it is transformers as it comes, with its default experts implementation;
each is then taken at its best. Counting is proved first, against a plain loop over the experts.
vLLM reads them in steps of 4,096 tokens, end to end, against vLLM as it comes.
`bars`: moe_transformers_ratio, moe_vllm_ratio.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

from common import alternate, emit, median_ratio, print_card, print_table
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.base import EngineOptions
from sparcom.engines.packing import plan_passes
from sparcom.engines.transformers import moe
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.errors import CountError
from sparcom.selection.rules import Selection, identify
from sparcom.store import RunStore

SHAPES = (1024, 2048, 4096)
QWEN_NEURONS = 24 * (60 * 1408 + 5632)  # of Qwen1.5-MoE-A2.7B


def bench_moe(arguments: argparse.Namespace) -> None:
    """Print table and JSON line; reads `tokens` and `rounds`."""
    prompts = make_prompts(arguments.tokens)
    tokens = sum(len(p.token_ids) for p in prompts)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder))
        options = EngineOptions(model=folder, device="cpu")
        engines = {
            "bare": TransformersEngine(replace(options, count=False)),
            "counting": TransformersEngine(options),
        }
    print_card()
    prove(engines["counting"], prompts[:6])
    print_layers(engines["counting"])
    stored = stored_bytes(engines["counting"], prompts[:32])
    calls = {
        f"{name} {rows}": lambda e=engine, r=rows: run(e, prompts, r)
        for rows in SHAPES
        for name, engine in engines.items()
    }
    times = alternate(calls, arguments.rounds)
    rate = {name: tokens / statistics.median(t) for name, t in times.items()}
    best = {n: max(SHAPES, key=lambda r, n=n: rate[f"{n} {r}"]) for n in engines}
    ratio, low, high = median_ratio(
        times[f"bare {best['bare']}"], times[f"counting {best['counting']}"]
    )
    print_shapes(times, rate)
    print(f"each at its best: {ratio:.3f} ({low:.3f} to {high:.3f})")
    emit(
        "engines.moe",
        {"moe_transformers_ratio": round(ratio, 4)},
        interval=[round(low, 4), round(high, 4)],
        tokens_per_s={name: round(value, 1) for name, value in rate.items()},
        rows=best,
        count_memory_mb=round(engines["counting"].recorder.nbytes / 1e6, 1),
        **stored,
    )


def bench_moe_vllm(arguments: argparse.Namespace) -> None:
    """Print table and JSON line of the vLLM engine; reads `tokens` and `rounds`."""
    from engines_vllm import call_of, close
    from sparcom.engines.vllm.engine import VllmEngine
    from sparcom.engines.vllm.options import VllmOptions

    prompts = make_prompts(arguments.tokens)
    tokens = sum(len(p.token_ids) for p in prompts)
    engines: dict[str, VllmEngine] = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            save_model(Path(folder))
            for name, count in (("bare", False), ("counting", True)):
                options = VllmOptions(folder, batch_tokens=4096, context=256, count=count)
                engines[name] = VllmEngine(options)
        times = alternate({n: call_of(e, prompts) for n, e in engines.items()}, arguments.rounds)
        count_bytes = engines["counting"].count_bytes
    finally:
        close(engines)
    print_card()
    ratio = median_ratio(times["bare"], times["counting"])
    rate = {name: tokens / statistics.median(t) for name, t in times.items()}
    print_table(
        ("engine", "tokens/s", "ratio", "95 % interval"),
        [
            ("vllm, bare", f"{rate['bare']:.0f}", "1.000", ""),
            ("vllm, counting", f"{rate['counting']:.0f}", f"{ratio[0]:.3f}",
             f"{ratio[1]:.3f} to {ratio[2]:.3f}"),
        ],
    )  # fmt: skip
    print(f"memory over bare: {count_bytes / 1e6:.1f} MB of counts")
    emit(
        "engines.moe.vllm",
        {"moe_vllm_ratio": round(ratio[0], 4)},
        interval=[round(v, 4) for v in ratio[1:]],
        tokens_per_s={name: round(value, 1) for name, value in rate.items()},
        count_bytes=count_bytes,
        prompts=len(prompts),
        tokens=tokens,
    )


def print_shapes(times: dict[str, list[float]], rate: dict[str, float]) -> None:
    """One line per number of rows."""
    rows = []
    for shape in SHAPES:
        bare, ours = f"bare {shape}", f"counting {shape}"
        ratio, low, high = median_ratio(times[bare], times[ours])
        rows.append((shape, f"{rate[bare]:.0f}", f"{rate[ours]:.0f}", f"{ratio:.3f}",
                     f"{low:.3f} to {high:.3f}"))  # fmt: skip
    print_table(("rows a pass", "bare tokens/s", "counting", "ratio", "95 % interval"), rows)


def save_model(folder: Path) -> None:
    """Write the model of the bars, random weights as large as a trained model's."""
    torch.manual_seed(0)
    config = Qwen2MoeConfig(
        vocab_size=4096,
        hidden_size=512,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        num_experts=60,
        num_experts_per_tok=4,
        moe_intermediate_size=352,
        shared_expert_intermediate_size=1408,
    )
    model = Qwen2MoeForCausalLM(config).to(torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, parameter.shape[-1] ** -0.5)
    model.save_pretrained(folder)


def make_prompts(tokens: int) -> list[Prompt]:
    """Prompts of random ids, 20 to 200 tokens long, about `tokens` tokens in all."""
    generator = np.random.default_rng(0)
    prompts: list[Prompt] = []
    while tokens > 0:
        ids = generator.integers(3, 4096, int(generator.integers(20, 201))).tolist()
        prompts.append(Prompt(f"p{len(prompts)}", tuple(ids), ((1, len(ids)),)))
        tokens -= len(ids)
    return prompts


def run(engine: TransformersEngine, prompts: Sequence[Prompt], rows: int) -> None:
    """Read all prompts, with `rows` rows a pass."""
    lengths = [len(p.token_ids) for p in prompts]
    for one in plan_passes(lengths, rows, engine.options.slots):
        held = [prompts[i] for i in one.prompts]
        engine.forward(held, one)
        if engine.recorder is not None:
            tokens = [p.n_counted for p in held]
            engine.recorder.take([p.id for p in held], range(len(held)), tokens)


def prove(engine: TransformersEngine, prompts: Sequence[Prompt]) -> None:
    """Raise CountError if routed counts differ from a plain loop's on the same pass.

    The loop's products are float64, the engine's are sums in float32: a gate nearer to zero than
    such a sum can be wrong by may count or not, and every other one must count as in the loop.
    """
    seen = []
    modules = [m for m in engine.model.modules() if moe.is_experts(m)]
    hooks = [m.register_forward_pre_hook(lambda m, a: seen.append((m, *a[:2]))) for m in modules]
    counted = list(engine.count(prompts))
    for hook in hooks:
        hook.remove()
    if len(counted) != 1:
        raise CountError("the proof expects one pass")
    sites = [i for i, site in enumerate(engine.space.sites) if site.experts]
    place = {name: row for row, name in enumerate(counted[0].ids)}
    order = sorted(prompts, key=lambda p: place[p.id])
    for at, (module, hidden, ids) in zip(sites, seen, strict=True):
        site, columns = engine.space.sites[at], engine.space.neuron_slices()[at]
        for expert, weight in enumerate(module.gate_up_proj):
            mine = (ids == expert).any(1).nonzero()[:, 0]
            bounds = firing(hidden[mine], weight[: site.width])
            start, first = 0, columns.start + expert * site.width
            for row, prompt in enumerate(order):
                here = (mine > start) & (mine < start + len(prompt.token_ids))
                start += len(prompt.token_ids)
                least, most = (fired[here].sum(0).numpy() for fired in bounds)
                ours = counted[0].neurons[row, first : first + site.width]
                if (ours < least).any() or (ours > most).any():
                    raise CountError(f"{site.name}, expert {expert}: counts differ from a loop's")


def firing(hidden: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(gates that fire for sure, gates that may fire), [rows, width] bool each.

    A sum of n products in float32, in any order, is wrong by at most `n 2^-24 sum |x w|`.
    hidden: [rows, n]; weight: [width, n].
    """
    hidden, weight = hidden.double(), weight.double()
    gate = hidden @ weight.T
    error = hidden.shape[1] * 2**-24 * (hidden.abs() @ weight.abs().T)
    return gate > error, gate > -error


def print_layers(engine: TransformersEngine) -> None:
    """One layer's experts, rows alone: every implementation of transformers, and ours."""
    module = next(m for m in engine.model.modules() if moe.is_experts(m))
    rows = []
    for tokens in (128, *SHAPES):
        generator = torch.Generator().manual_seed(0)
        hidden = torch.randn(tokens, 512, generator=generator).bfloat16()
        ids = torch.rand(tokens, 60, generator=generator).topk(4).indices
        weights = torch.rand(tokens, 4, generator=generator).bfloat16()
        engine.recorder.begin(torch.arange(tokens) // 100 % engine.options.slots)
        # batched_mm copies the weights of every token: 3 GB at 1024 of them.
        names = ["eager", "grouped_mm", moe.NAME] + ["batched_mm"] * (tokens <= 128)

        def call(name: str, arguments=(hidden, ids, weights)) -> None:
            module.config._experts_implementation = name
            with torch.inference_mode():
                module(*arguments)

        times = alternate({name: lambda n=name: call(n) for name in names}, 5)
        shown = {name: f"{1e3 * statistics.median(t):.1f}" for name, t in times.items()}
        rows.append((tokens, *(shown.get(n, "") for n in ("batched_mm", *names[:3]))))
    engine.recorder.discard()
    print_table(("rows, ms a layer", "batched_mm", "eager", "grouped_mm", "counting"), rows)


def stored_bytes(engine: TransformersEngine, prompts: Sequence[Prompt]) -> dict[str, float]:
    """Bytes a neuron, per instruction, of sets and counts as stored, and what Qwen1.5-MoE takes."""
    passes = list(engine.count(prompts))
    parts = [(c, identify(c, engine.space, Selection())) for c in passes]
    instructions = sum(len(c.ids) for c, _ in parts)
    with tempfile.TemporaryDirectory() as folder:
        for part, (counted, sets) in enumerate(parts):
            RunStore(folder).results.write(part, counted, sets, [])
        size = {
            kind: sum(f.stat().st_size for f in Path(folder, kind).iterdir()) / instructions
            for kind in ("counts", "sets")
        }
    scale = QWEN_NEURONS / engine.space.neurons
    print(
        f"stored per instruction, scaled to Qwen1.5-MoE's {QWEN_NEURONS} neurons: sets "
        f"{scale * size['sets'] / 1e3:.0f} kB ({QWEN_NEURONS / 8e3:.0f} kB before compression), "
        f"counts {scale * size['counts'] / 1e3:.0f} kB"
    )
    return {f"qwen_{kind}_kb": round(scale * value / 1e3, 1) for kind, value in size.items()}
