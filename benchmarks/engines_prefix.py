"""vLLM engine: instructions that share a header, with and without prefix caching.

    python benchmarks/engines_prefix.py [--header 1000] [--instructions 200] [--rounds 3]

The header (a system prompt, few-shot examples) is not counted; 20 to 100 tokens of each
instruction's own text are. Two engines stay loaded and take turns; each round has a header and
texts of its own, so that nothing is left in a cache from an earlier one. Before anything is timed,
the counts of both engines must be equal, cell for cell.
`bars`: vllm_prefix_ratio, the time without caching over that with it.
"""

import argparse
import random
import statistics
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from common import alternate, emit, median_ratio, print_card, print_table
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.engines.vllm.process import launch
from sparcom.models import resolve_model

CACHING = {"no caching": False, "prefix caching": True}


def make_prompts(n: int, header: int, turn: int) -> list[Prompt]:
    """n prompts of random tokens, 20 to 100 of them counted, after the same `header` ones."""
    rng = random.Random(turn)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, 32000) for _ in range(count))

    first = tokens(header)
    prompts = []
    for i in range(n):
        ids = first + tokens(rng.randint(20, 100))
        prompts.append(Prompt(f"p{i}", ids, ((header, len(ids)),)))
    return prompts


def check_equal(engines: dict[str, VllmEngine], prompts: Sequence[Prompt]) -> int:
    """Tokens that came from the cache; raises if the engines count differently, or none came."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, engine in engines.items():
        rows: dict[str, np.ndarray] = {}
        for counted in engine.count(prompts):
            rows |= zip(counted.ids, counted.neurons, strict=True)
        found[name] = rows
    without, cached = found.values()
    different = [name for name in without if not np.array_equal(without[name], cached[name])]
    if different:
        raise RuntimeError(f"{len(different)} instructions are counted differently with a cache")
    tokens = [engine.cached for engine in engines.values()]
    if tokens[0] or not tokens[1]:
        raise RuntimeError(f"tokens from the cache: {tokens[0]} without one, {tokens[1]} with one")
    return tokens[1]


def rounds_of(engine: VllmEngine, rounds: Iterator[list[Prompt]]) -> Callable[[], int]:
    """Counts the next round's prompts each time it is called."""
    return lambda: sum(len(counted.ids) for counted in engine.count(next(rounds)))


def bench_prefix(model: str, header: int, instructions: int, rounds: int) -> None:
    """Print table and JSON line."""
    turns = [make_prompts(instructions, header, turn) for turn in range(rounds + 1)]
    tokens = [sum(len(p.token_ids) for p in prompts) for prompts in turns]
    engines: dict[str, VllmEngine] = {}
    try:
        for name, caching in CACHING.items():
            options = VllmOptions(resolve_model(model), prefix_caching=caching, prove=False)
            engines[name] = VllmEngine(options)
        cached = check_equal(engines, turns[0])
        times = alternate(
            {name: rounds_of(engine, iter(turns[1:])) for name, engine in engines.items()},
            rounds, warm_up=0,
        )  # fmt: skip
    finally:
        for engine in engines.values():
            engine.close()
    without, with_cache = times.values()
    ratio, low, high = median_ratio(without, with_cache)
    print_card()
    print_table(
        ("engine", "seconds", "prompt tokens/s"),
        [
            (name, f"{statistics.median(each):.1f}",
             f"{statistics.median(t / s for t, s in zip(tokens[1:], each, strict=True)):.0f}")
            for name, each in times.items()
        ],
    )  # fmt: skip
    print(f"{cached} of {tokens[0]} tokens came from the cache; ratio {ratio:.2f} "
          f"({low:.2f} to {high:.2f})")  # fmt: skip
    emit(
        "engines.prefix",
        {"vllm_prefix_ratio": round(ratio, 3)},
        interval=[round(low, 3), round(high, 3)],
        seconds={name: [round(s, 2) for s in each] for name, each in times.items()},
        header=header,
        instructions=instructions,
        tokens=tokens[0],
        cached=cached,
        vllm=launch.check_version(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--header", type=int, default=1000, help="tokens that all prompts share")
    parser.add_argument("--instructions", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    bench_prefix(given.model, given.header, given.instructions, given.rounds)


if __name__ == "__main__":
    main()
