"""vLLM engine: instructions that share a header, with and without prefix caching.

    python benchmarks/engines_prefix.py [--header 1000] [--instructions 200] [--rounds 3]

The header (a system prompt, few-shot examples) is not counted; 20 to 100 tokens of each
instruction's own text are. Two engines stay loaded and take turns; each round has a header and
texts of its own, so that nothing is left in a cache from an earlier one. Before anything is timed,
the counts of both engines must be equal, but for what rounding changes.
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
CHECKED = 12  # instructions whose counts are compared first


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


def counts_of(engine: VllmEngine, prompts: Sequence[Prompt]) -> np.ndarray:
    """[prompts, neurons] counts, in the order of the ids."""
    rows: dict[str, np.ndarray] = {}
    for counted in engine.count(prompts):
        rows |= zip(counted.ids, counted.neurons, strict=True)
    return np.stack([rows[name] for name in sorted(rows)])


def check_equal(engines: dict[str, VllmEngine], prompts: Sequence[Prompt]) -> tuple[int, float]:
    """(tokens that came from the cache, share of the firings that differ with one).

    A header that was read before is another pass, which may round otherwise: so is the same work
    in the opposite order, without a cache. Raises unless the cache changes at most twice as much.
    """
    plain, caching = engines.values()
    expected, found = counts_of(plain, prompts), counts_of(caching, prompts)
    again = counts_of(plain, prompts[::-1])
    rounding, share = (float(np.abs(x - expected).sum() / expected.sum()) for x in (again, found))
    if share > 2 * rounding:
        raise RuntimeError(
            f"with a cache {share:.2%} of the firings differ; in another order {rounding:.2%} do"
        )
    if plain.cached or not caching.cached:
        raise RuntimeError(
            f"tokens from the cache: {plain.cached} without one, {caching.cached} with one"
        )
    return caching.cached, share


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
        checked = turns[0][:CHECKED]
        cached, share = check_equal(engines, checked)
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
    asked = sum(len(p.token_ids) for p in checked)
    print(f"{cached} of {asked} tokens came from the cache, {share:.2%} of the firings differ "
          f"with it; ratio {ratio:.2f} ({low:.2f} to {high:.2f})")  # fmt: skip
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
