"""Engines: tokens per second with counting against the same engine without it.

    python benchmarks/engines.py                    the transformers engine, dense model
    python benchmarks/engines.py --moe              the same, mixture of experts (engines_moe.py)
    python benchmarks/engines.py --engine vllm      the vLLM engine (engines_vllm.py)
    python benchmarks/engines.py --engine vllm --moe

Both engines run the same prompts, alternately, each at its own best number of rows per pass;
medians of pairs. Counting is proved first: every count equals a plain forward hook's.
`bars`: transformers_counting_over_bare; signs_ratio, tokens per second with --signs over without;
magnitudes_ratio, the same of --magnitudes.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from common import alternate, emit, median_ratio, print_card, print_table
from sparcom.config import RunConfig
from sparcom.corpus.opening import load_corpus
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.packing import plan_passes
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.errors import CountError
from sparcom.planning.options import engine_options
from sparcom.planning.prompts import PromptMaker

SHAPES = (512, 1024, 2048)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument("--moe", action="store_true", help="a mixture of experts")
    parser.add_argument("--model", default="default")
    parser.add_argument("--corpus", default="hexainst")
    parser.add_argument("--tokens", type=int, default=8000, help="prompt tokens of one round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--prompts", type=int, default=256, help="prompts of one round, vllm")
    parser.add_argument("--modes", help="vllm: comparisons to run, of eager,compiled,hook")
    arguments = parser.parse_args()
    if arguments.moe and arguments.engine == "vllm":
        from engines_moe import bench_moe_vllm

        bench_moe_vllm(arguments)
    elif arguments.engine == "vllm":
        from engines_vllm import MODES, bench_vllm, modes_of

        modes = modes_of(arguments.modes or ",".join(MODES))
        bench_vllm(arguments.model, arguments.rounds, arguments.prompts, modes)
    elif arguments.moe:
        from engines_moe import bench_moe

        bench_moe(arguments)
    else:
        bench_transformers(arguments)


def bench_transformers(arguments: argparse.Namespace) -> None:
    """Print table and JSON line of the transformers engine."""
    config = RunConfig(model=arguments.model, corpus=arguments.corpus)
    options = engine_options(config)
    prompts = PromptMaker(config, options).prompts(load_corpus(config.corpus))
    prompts = spread(prompts, arguments.tokens)
    tokens = sum(len(p.token_ids) for p in prompts)
    engines = {
        "bare": TransformersEngine(replace(options, count=False)),
        "counting": TransformersEngine(options),
        "signs": TransformersEngine(replace(options, signs=True)),
        "magnitudes": TransformersEngine(replace(options, magnitudes=True)),
    }
    print_card()
    prove(engines["counting"], prompts[:8])
    prove(engines["signs"], prompts[:8])
    best = {name: best_shape(engine, prompts) for name, engine in engines.items()}
    times = alternate(
        {n: lambda n=n: run(engines[n], prompts, best[n]) for n in engines}, arguments.rounds
    )
    ratio, low, high = median_ratio(times["bare"], times["counting"])
    more = {n: median_ratio(times["counting"], times[n]) for n in ("signs", "magnitudes")}
    rate = {name: tokens / statistics.median(t) for name, t in times.items()}
    print_table(
        ("engine", "rows a pass", "tokens/s", "ratio", "95 % interval"),
        [
            ("transformers, bare", best["bare"], f"{rate['bare']:.0f}", "1.000", ""),
            ("transformers, counting", best["counting"], f"{rate['counting']:.0f}",
             f"{ratio:.3f}", f"{low:.3f} to {high:.3f}"),
            *((f"the same with --{name}, over counting", best[name], f"{rate[name]:.0f}",
               f"{one:.3f}", f"{least:.3f} to {most:.3f}")
              for name, (one, least, most) in more.items()),
        ],
    )  # fmt: skip
    emit(
        "engines.transformers",
        {
            "transformers_counting_over_bare": round(ratio, 4),
            "signs_ratio": round(more["signs"][0], 4),
            "magnitudes_ratio": round(more["magnitudes"][0], 4),
        },
        interval=[round(low, 4), round(high, 4)],
        more_intervals={n: [round(x, 4) for x in more[n][1:]] for n in more},
        tokens_per_s={name: round(value, 1) for name, value in rate.items()},
        prompts=len(prompts),
        tokens=tokens,
    )


def spread(prompts: Sequence[Prompt], tokens: int) -> list[Prompt]:
    """Prompts from all over a corpus, about `tokens` tokens of them."""
    total = sum(len(p.token_ids) for p in prompts)
    step = max(1, total // tokens)
    return list(prompts[::step])


def run(engine: TransformersEngine, prompts: Sequence[Prompt], rows: int) -> None:
    """Read all prompts, with `rows` rows a pass."""
    if engine.recorder is None:
        lengths = [len(p.token_ids) for p in prompts]
        for one in plan_passes(lengths, rows, engine.options.slots):
            engine.forward([prompts[i] for i in one.prompts], one)
        return
    engine.options = replace(engine.options, batch_tokens=rows)
    for _ in engine.count(prompts):
        pass


def best_shape(engine: TransformersEngine, prompts: Sequence[Prompt]) -> int:
    """The fastest of SHAPES."""
    times = alternate({str(rows): lambda r=rows: run(engine, prompts, r) for rows in SHAPES}, 2)
    return int(min(times, key=lambda rows: min(times[rows])))


def prove(engine: TransformersEngine, prompts: Sequence[Prompt]) -> None:
    """Raise CountError if counts, or signs, differ from a plain hook on the same passes."""
    plain = {p.id: torch.zeros(3, engine.space.neurons, dtype=torch.int64) for p in prompts}
    gates: list[torch.Tensor] = []
    ups: list[torch.Tensor] = []
    hooks = [
        m.register_forward_hook(lambda m, i, out, to=to: to.append(out[0] > 0))
        for n, m in engine.model.named_modules()
        for part, to in (("gate_proj", gates), ("up_proj", ups))
        if n.endswith(part)
    ]
    lengths = [len(p.token_ids) for p in prompts]
    passes = plan_passes(lengths, engine.options.batch_tokens, engine.options.slots)
    counted = engine.count(prompts)
    for one in passes:
        gates.clear()
        ups.clear()
        ours = next(counted)
        start = 0
        for row, i in enumerate(one.prompts):
            prompt = prompts[i]
            for first, last in prompt.counted:
                rows = slice(start + first, start + last)
                fired = [torch.stack([g[rows], u[rows], g[rows] & u[rows]]).sum(1)
                         for g, u in zip(gates, ups, strict=True)]  # fmt: skip
                plain[prompt.id] += torch.cat(fired, 1)
            found = [ours.neurons[row], *(() if ours.signs is None else ours.signs[:, row])]
            if not torch.equal(
                torch.tensor(np.array(found)).long(), plain[prompt.id][: len(found)]
            ):
                raise CountError(f"{prompt.id}: counts differ from a plain hook's")
            start += len(prompt.token_ids)
    for hook in hooks:
        hook.remove()


if __name__ == "__main__":
    main()
