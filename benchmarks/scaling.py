"""The service measured: actors side by side, memory against corpus size, what Ray and storage cost.

    python benchmarks/scaling.py                     everything, about twenty minutes on two cores
    python benchmarks/scaling.py --parts actors      one of: actors, memory, overhead
    python benchmarks/scaling.py --sizes 2000 20000  a shorter look

    actors_2_over_1    tokens/s of two single-threaded actors over one; starting up left out. Beside
                       it the machine's own: two plain loops at once over one
    memory_growth      memory at the larger corpus over the smaller; the worse of driver and actor
    service_overhead   time of a run that retains profiles over that of one plain loop, less 1: the
                       larger corpus in both, of which the same parts are timed

Models are random. The one of memory and overhead is tiny, so that the service's own share is as
large as it gets; the one of the actors is as wide as SmolLM2-135M, four layers of it.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from common import emit, print_card, print_table
from sparcom.config import RunConfig
from sparcom.engines.count_part import count_part
from sparcom.engines.load import load_engine
from sparcom.pipeline.merging import Merger
from sparcom.pipeline.plan import prepare
from sparcom.pipeline.ray.pool import count_parts
from sparcom.pipeline.ray.session import ray_session
from sparcom.selection.rules import identify
from sparcom.store import CellRule, part_profile

PARTS = ("actors", "memory", "overhead")
LIMITS = {
    "actors_2_over_1": (">=", 1.85),
    "memory_growth": ("<=", 1.10),
    "service_overhead": ("<=", 0.15),
}
WORDS = [f"word{k}" for k in range(200)]
SHORT, AS_HEXAINST = (5, 40), (20, 180)  # words of an instruction
ACTORS_SIZE = 4800  # the more, the less the wait for the last part weighs
CATEGORIES = ("CLS", "CODE", "QA", "GEN", "MATH", "SUM")


Rows = list[tuple[str, str, str, str, str]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--parts", type=parts_of, default=PARTS, help="some of actors,memory,overhead"
    )
    parser.add_argument("--sizes", type=int, nargs=2, default=(20_000, 200_000))
    parser.add_argument("--rounds", type=int, default=3, help="pairs of 1 and 2 actors")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a measurement in a process of its own
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(**json.loads(arguments.one))))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        save_model(work / "tiny", hidden=32, layers=3)
        save_model(work / "small", hidden=576, layers=4)  # as wide as SmolLM2-135M
        for size in arguments.sizes:
            write_corpus(work / f"{size}.jsonl", size, SHORT)
        write_corpus(work / f"{ACTORS_SIZE}.jsonl", ACTORS_SIZE, AS_HEXAINST)
        print_card()
        bars, rows, more = measure_all(work, arguments)
    print_table(("figure", "baseline", "ours", "result", "bound"), rows)
    emit("scaling", bars, limits={name: " ".join(map(str, LIMITS[name])) for name in bars}, **more)


def parts_of(text: str) -> tuple[str, ...]:
    """`actors,memory` taken apart."""
    parts = tuple(text.split(","))
    if unknown := set(parts) - set(PARTS):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(PARTS)}, got {unknown}")
    return parts


def measure_all(work: Path, arguments: argparse.Namespace) -> tuple[dict, Rows, dict]:
    """(bars, table rows, raw figures) of the parts that are asked for."""
    bars: dict[str, float] = {}
    rows: Rows = []
    more: dict[str, Any] = {}
    small, large = arguments.sizes

    @cache
    def served(size: int) -> dict[str, float]:
        return in_process(work, "tiny", size, part_size=1024)

    if "actors" in arguments.parts:
        small_parts = (work, "small", ACTORS_SIZE, 64)
        more["pairs"] = [
            [in_process(*small_parts, actors=n, memory=False) for n in (1, 2)]
            for _ in range(arguments.rounds)
        ]
        rates = [[one["tokens_per_s"] for one in pair] for pair in more["pairs"]]
        one, two = (statistics.median(column) for column in zip(*rates, strict=True))
        bars["actors_2_over_1"] = round(statistics.median(b / a for a, b in rates), 3)
        rows.append(
            row("tokens/s, 2 actors over 1", f"{one:.0f}", f"{two:.0f}", bars, "actors_2_over_1")
        )
        with ThreadPoolExecutor(2) as pool:
            alone = in_process(*small_parts, plain=True)["tokens_per_s"]
            both = [pool.submit(in_process, *small_parts, plain=True) for _ in range(2)]
            together = sum(one.result()["tokens_per_s"] for one in both)
        more["two_plain_loops_over_one"] = round(together / alone, 3)
        label = "tokens/s, 2 plain loops at once over 1"
        rows.append((label, f"{alone:.0f}", f"{together:.0f}", f"{together / alone:.3f}", ""))
    if "memory" in arguments.parts:
        more["small"], more["large"] = served(small), served(large)
        bars["memory_growth"] = 0.0
        for who in ("driver", "actor"):
            a, b = more["small"][f"{who}_mb"], more["large"][f"{who}_mb"]
            bars["memory_growth"] = max(bars["memory_growth"], round(b / a, 3))
            label = f"{who} memory, MB, {large} over {small} instructions"
            rows.append((label, f"{a:.0f}", f"{b:.0f}", f"{b / a:.3f}", bound("memory_growth")))
        a, b = (more[key]["merge_us_per_instruction"] for key in ("small", "large"))
        label = f"merging, us per instruction, {large} over {small}"
        rows.append((label, f"{a:.0f}", f"{b:.0f}", f"{b / a:.3f}", ""))
    if "overhead" in arguments.parts:
        more["plain"] = in_process(work, "tiny", large, part_size=1024, plain=True)
        more["large"] = served(large)
        a, b = (more[key]["instructions_per_s"] for key in ("plain", "large"))
        bars["service_overhead"] = round(a / b - 1, 3)
        label = f"instructions/s of {large}, service over plain loop"
        rows.append(row(label, f"{a:.0f}", f"{b:.0f}", bars, "service_overhead"))
    return bars, rows, more


def row(
    label: str, baseline: str, ours: str, bars: dict, bar: str
) -> tuple[str, str, str, str, str]:
    """A row of the table that ends with a bar and its bound."""
    return label, baseline, ours, f"{bars[bar]:.3f}", bound(bar)


def bound(bar: str) -> str:
    sign, value = LIMITS[bar]
    return f"{sign} {value:.2f}"


def in_process(
    work: Path, model: str, size: int, part_size: int, **options: Any
) -> dict[str, float]:
    """`measure` in a fresh process, whose memory nothing else has touched."""
    order = json.dumps(
        {"work": str(work), "model": model, "size": size, "part_size": part_size, **options}
    )
    done = subprocess.run(
        [sys.executable, __file__, "--one", order], stdout=subprocess.PIPE, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    print(order, {k: round(v, 1) for k, v in found.items()}, file=sys.stderr, flush=True)
    return found


def measure(
    work: str,
    model: str,
    size: int,
    part_size: int,
    actors: int = 1,
    plain: bool = False,
    memory: bool = True,
) -> dict[str, float]:
    """One run, or the same work in a plain loop."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=work) as out:
        config = RunConfig(
            model=f"{work}/{model}", corpus=f"{work}/{size}.jsonl", out=f"{out}/run",
            template="raw", cpus=1, actors=actors, part_size=part_size, retain="profile",
        )  # fmt: skip
        return plain_loop(config) if plain else service(config, memory)


def service(config: RunConfig, looked_at: bool) -> dict[str, float]:
    """Rates between the first part of every actor and the end, merging included; memory then.

    looked_at: look at the memory, which takes 3 % of a core.
    """
    plan = prepare(config)
    merger = TimedMerger(plan, remote=False)
    marks: list[tuple[float, int, int]] = []
    with ray_session(config, plan.parts), merger, Memory() as memory:
        for result in count_parts(plan):
            marks.append((time.perf_counter(), result.tokens, result.instructions))
            memory.on = looked_at and len(marks) >= config.actors
            merger.add(result.part)
        merger.finish()
        ended = time.perf_counter()
    warm = 2 * config.actors  # a part of each in hand, one more behind it
    seconds = ended - marks[warm - 1][0]
    return {
        "tokens_per_s": sum(m[1] for m in marks[warm:]) / seconds,
        "instructions_per_s": sum(m[2] for m in marks[warm:]) / seconds,
        "merge_us_per_instruction": 1e6 * merger.seconds / plan.instructions,
        "driver_mb": memory.most["driver"] / 1e6,
        "actor_mb": memory.most["actor"] / 1e6,
    }


class TimedMerger(Merger):
    """A Merger that knows how long its merges took."""

    seconds = 0.0

    def _merge(self, *arguments: Any) -> None:
        started = time.perf_counter()
        super()._merge(*arguments)
        self.seconds += time.perf_counter() - started


def plain_loop(config: RunConfig) -> dict[str, float]:
    """Count, identify and sum up, part by part, in one process and in memory: no Ray, no storage.

    The whole corpus but for its first two parts is timed, as in `service`.
    """
    plan = prepare(config)
    engine = load_engine(config.engine, plan.work.options)
    cells = CellRule.from_json(plan.manifest["cells"])
    seconds = done = tokens = 0.0
    for number in plan.todo:
        prompts, labels = plan.store.corpus.prompts(number)
        started = time.perf_counter()
        counted, _ = count_part(engine, prompts)
        sets = identify(counted, engine.space, config.selection())
        part_profile(counted, sets, cells.keys(labels, counted.tokens))
        if number >= 2:
            seconds += time.perf_counter() - started
            done += len(prompts)
            tokens += sum(len(prompt.token_ids) for prompt in prompts)
    return {"instructions_per_s": done / seconds, "tokens_per_s": tokens / seconds}


class Memory:
    """The most memory that the driver and an actor hold, looked at while `on`.

    What a process holds alone (USS): shared libraries and Ray's object store are not its own.
    """

    def __init__(self) -> None:
        self.on, self.most = False, {"driver": 0, "actor": 0}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        driver = psutil.Process()
        while not self._stop.wait(1.0):
            if self.on:
                self._take("driver", driver)
                for child in driver.children(recursive=True):
                    try:
                        if "CountActor" in "".join(child.cmdline()[:1]):
                            self._take("actor", child)
                    except psutil.Error:
                        continue

    def _take(self, who: str, process: psutil.Process) -> None:
        self.most[who] = max(self.most[who], process.memory_full_info().uss)


def save_model(folder: Path, hidden: int, layers: int) -> None:
    """A random Llama and a tokenizer of one token per word."""
    tokens = ["<pad>", "<s>", "</s>", *WORDS]
    words = models.WordLevel({word: k for k, word in enumerate(tokens)}, unk_token="<pad>")
    tokenizer = Tokenizer(words)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama", vocab_size=len(tokens), hidden_size=hidden, intermediate_size=4 * hidden,
        num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=4,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    model.save_pretrained(folder)


def write_corpus(path: Path, size: int, words: tuple[int, int]) -> None:
    """Instructions of so many words, from and to; six categories, two sources."""
    rng = random.Random(0)
    with path.open("w") as file:
        for k in range(size):
            row = {
                "id": f"i{k:07d}",
                "category": CATEGORIES[k % 6],
                "source": ("human", "ai")[k // 6 % 2],
                "instruction": " ".join(rng.choices(WORDS, k=rng.randint(*words))),
            }
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
