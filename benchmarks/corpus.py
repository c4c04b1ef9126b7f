"""Reading corpora: `check` and `stats` over a million records, and tokenising against the engine.

    python benchmarks/corpus.py [--records 1000000] [--model default]

`check` and `stats` run in processes of their own, so that peak memory is theirs alone. Their
baseline is what no reader can be faster than: decoding the same JSON lines and nothing else.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import emit, print_card, print_table
from sparcom.corpus.checking.check import check
from sparcom.corpus.checking.stats import stats
from sparcom.corpus.hexainst.bundled import BUNDLED
from sparcom.corpus.opening import load_corpus
from sparcom.corpus.prompts.chat_template import make_template
from sparcom.corpus.prompts.prompts import make_prompts
from sparcom.corpus.reading.corpus import Corpus
from sparcom.corpus.schema import CATEGORIES
from sparcom.errors import InputError

STEPS = ("decode", "check", "stats")
ENGINE_TOKENS = 4096  # what the engine reads to learn its speed
ROUNDS = 3


def write_records(path: Path, n: int) -> None:
    """`n` records of random words, as long as those of the bundled half."""
    rng = random.Random(0)
    words = [
        "".join(rng.choices("etaoinshrdlucmfwypvbg", k=rng.randint(2, 9))) for _ in range(20_000)
    ]
    lengths = [len(item.text.split()) for item in load_corpus(BUNDLED)]
    with path.open("w", encoding="utf-8") as file:
        for at in range(n):
            text = rng.choices(words, k=rng.choice(lengths))
            record = {
                "id": f"generated-{at:08d}",
                "category": CATEGORIES[at % 6],
                "source": "generated",
                "origin": "benchmarks/corpus.py",
                "license": "CC0-1.0",
                "instruction": " ".join(text[:20]),
                "input": " ".join(text[20:]),
                "reference": " ".join(text[:4]),
            }
            file.write(json.dumps(record) + "\n")


def run_step(step: str, path: Path) -> dict[str, float]:
    """One step over the file: records, seconds on the clock and of the processor, peak memory."""
    wall, busy = time.perf_counter(), time.process_time()
    if step == "decode":
        with path.open("rb") as lines:
            records = sum(1 for line in lines if json.loads(line))
    elif step == "check":
        records = check(Corpus(path)).records.total()
    else:
        records = stats(Corpus(path)).records
    return {
        "records": records,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - busy,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure(step: str, path: Path) -> dict[str, Any]:
    """`run_step` in a process of its own."""
    command = [sys.executable, __file__, "--step", step, "--file", str(path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {"step": step, **json.loads(output.splitlines()[-1])}


def token_rates(model: str) -> dict[str, float]:
    """Tokens per second on the bundled half: rendering alone, `make_prompts`, and the engine."""
    from transformers import AutoTokenizer

    from sparcom.engines.base import EngineOptions
    from sparcom.engines.transformers.engine import TransformersEngine
    from sparcom.models import resolve_model

    folder = resolve_model(model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    instructions = load_corpus(BUNDLED)
    template = make_template("model", tokenizer)
    prompts = make_prompts(instructions, tokenizer, template=template)  # warm
    tokens = sum(len(prompt.token_ids) for prompt in prompts)
    rates, rendered = [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        make_prompts(instructions, tokenizer, template=template)
        rates.append(tokens / (time.perf_counter() - started))
        started = time.perf_counter()
        list(template.wrap([item.text for item in instructions]))
        rendered.append(tokens / (time.perf_counter() - started))
    engine = TransformersEngine(EngineOptions(model=folder))
    some, held = [], 0
    for prompt in prompts[:: len(prompts) // 60]:
        if held < ENGINE_TOKENS:
            some.append(prompt)
            held += len(prompt.token_ids)
    list(engine.count(some[:2]))  # warm
    started = time.perf_counter()
    list(engine.count(some))
    engine_rate = held / (time.perf_counter() - started)
    engine.close()
    middle = ROUNDS // 2
    return {
        "render": sorted(rendered)[middle],
        "tokenize": sorted(rates)[middle],
        "engine": engine_rate,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--model", default="default")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(run_step(arguments.step, arguments.file)))
        return
    print_card()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generated.jsonl"
        write_records(path, arguments.records)
        size = path.stat().st_size
        steps = [measure(step, path) for step in STEPS]
    limit = steps[0]["records"] / steps[0]["seconds"]
    if any(step["records"] != arguments.records for step in steps):
        raise InputError(f"corpus bench: a step lost records: {steps}")
    rows = [
        [
            step["step"],
            f"{step['seconds']:.1f}",
            f"{step['records'] / step['seconds']:,.0f}",
            f"{step['records'] / step['cpu_seconds']:,.0f}",
            f"{step['records'] / step['seconds'] / limit:.0%}",
            f"{step['peak_mb']:.0f}",
        ]
        for step in steps
    ]
    print(f"{arguments.records:,} records, {size / 1e6:.0f} MB of JSONL")
    head = ["step", "s", "records/s", "records/cpu s", "of decoding", "peak MB"]
    print_table(head, rows)
    speed = token_rates(arguments.model)
    print_table(["", "tokens/s"], [[name, f"{rate:,.0f}"] for name, rate in speed.items()])
    slowest = min(step["records"] / step["seconds"] for step in steps[1:])
    bars = {
        "check_rows_per_s": slowest,
        "check_peak_mb": max(step["peak_mb"] for step in steps[1:]),
        "tokenize_ratio": speed["tokenize"] / speed["engine"],
    }
    emit("corpus", bars, steps=steps, tokens_per_s=speed)


if __name__ == "__main__":
    main()
