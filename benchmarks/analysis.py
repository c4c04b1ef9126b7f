"""Analysis: everything that a stored run says, and a corpus of any size by prevalence.

    python benchmarks/analysis.py

Synthetic sets with planted structure are written as a run is. The whole analysis is timed in a
process of its own; its core is then repeated by plain NumPy, and both must agree. Loading a sample
of pairs is measured on runs of two sizes, so that memory is seen to stay flat.
`bars`: analysis_s, analysis_peak_mb, stream_mb_per_core_s.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from common import emit, print_card, print_table
from sparcom.analysis.analyse import analyse
from sparcom.analysis.data.bitsets import column_counts, intersections, pack
from sparcom.analysis.data.load import load
from sparcom.analysis.options import AnalysisOptions
from sparcom.analysis.overlap.category_matrix import category_matrix
from sparcom.analysis.overlap.measures import pair_matrix
from sparcom.analysis.stats.pair_sums import permutation_draws, weighted_sums
from sparcom.analysis.stats.resample import bootstrap_weights, permuted_codes
from sparcom.components import ComponentSpace, Site
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.corpus.schema import CATEGORIES, Instruction
from sparcom.counting.counted import Counted
from sparcom.selection.rules import Selection
from sparcom.selection.sets import Sets
from sparcom.store import (
    CellRule,
    Run,
    RunStore,
    Span,
    length_edges,
    part_profile,
    writing_corpus,
)
from sparcom.store.corpus_file import LABELS
from sparcom.store.run_store import RESULT_FOLDERS

SPACE = ComponentSpace(tuple(Site("dense", layer, 11008, "silu") for layer in range(32)))
GENERAL, UNIQUE = 500, 300
PART = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instructions", type=int, default=1200)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--plain-draws", type=int, default=10, help="of plain NumPy, scaled up")
    parser.add_argument("--stream", type=int, default=4096, help="instructions of the stream")
    arguments = parser.parse_args()
    print_card()
    with tempfile.TemporaryDirectory() as folder:
        options = AnalysisOptions(permutations=arguments.draws, bootstraps=arguments.draws)
        location = write_run(Path(folder) / "run", arguments.instructions)
        whole = in_process(timed_analysis, location, options)
        check_planted(whole["specific"], whole["general"])
        rows = compare_with_plain(Run(location), arguments.draws, arguments.plain_draws)
        sizes = (arguments.stream // 4, arguments.stream)
        streams = [
            in_process(timed_stream, write_run(Path(folder) / f"s{n}", n, repeat=512))
            for n in sizes
        ]
    print_table(("step", "plain NumPy s", "ours s", "ratio"), rows)
    print(f"\nwhole analysis: {whole['seconds']:.1f} s, peak {whole['peak_mb']:.0f} MB")
    growth = streams[1]["peak_mb"] - streams[0]["peak_mb"]
    print(
        f"stream: {streams[1]['rate']:.0f} MB of sets a second and core; {growth:+.0f} MB "
        f"of memory from {sizes[0]} to {sizes[1]} instructions"
    )
    bars = {
        "analysis_s": round(whole["seconds"], 2),
        "analysis_peak_mb": round(whole["peak_mb"]),
        "stream_mb_per_core_s": round(streams[1]["rate"]),
    }
    emit("analysis", bars, stream_growth_mb=round(growth), plain={r[0]: r[3] for r in rows})


# -- the run ------------------------------------------------------------------------------------


def write_run(location: Path, n: int, repeat: int | None = None) -> str:
    """A run of n instructions over 352,256 neurons: general, unique and null ones.

    repeat: draw so many sets and use them again and again (what they hold does not matter to a
    stream), and retain no counts.
    """
    rng = np.random.default_rng(0)
    base = rng.beta(0.25, 20, SPACE.neurons)
    base[:GENERAL] = 0.7
    base[GENERAL : GENERAL + UNIQUE * len(CATEGORIES)] = 0.05
    drawn = np.zeros((min(n, repeat or n), SPACE.neurons // 8), np.uint8)
    for row in range(len(drawn)):
        q = base.copy()
        start = GENERAL + UNIQUE * (row % len(CATEGORIES))
        q[start : start + UNIQUE] = 0.5
        drawn[row] = pack(rng.random((1, SPACE.neurons)) < q)[0]
    tokens = np.clip(rng.lognormal(3.5, 0.6, n).astype(np.int64), 4, 400)
    store = RunStore(location)
    instructions, prompts = _corpus(tokens)
    with writing_corpus(store.files) as writer:
        for start in range(0, n, PART):
            part = slice(start, start + PART)
            writer.add(instructions[part], prompts[part])
    cells = CellRule(length_edges(np.bincount(tokens)))
    for part in range(-(-n // PART)):
        rows = np.arange(part * PART, min(n, (part + 1) * PART))
        sets = _sets(rows, tokens[rows], drawn[rows % len(drawn)])
        counted = _counted(sets)
        store.results.write(part, None if repeat else counted, sets, [])
        labels = store.corpus.part(part, LABELS)
        profile = part_profile(counted, sets, cells.keys(labels, sets.tokens))
        store.profiles.write(part, profile)
    store.profiles.merge(Span(0, store.corpus.parts()))
    hashes = {"hash": "", "labels": ""}  # of a corpus that no model has read
    store.write_manifest(
        {
            "status": "complete",
            "config": {"retain": "sets" if repeat else "counts"},
            "model": {"path": "", "weights": ""},
            "corpus": {"instructions": n, "prompt_tokens": 0, "counted_tokens": 0, **hashes},
            "cells": cells.to_json(),
            "sites": SPACE.to_json(),
            "selection": asdict(Selection()),
            "threads": None,
            "versions": {},
            "created": "",
            "stamps": dict.fromkeys((*RESULT_FOLDERS, "corpus"), ""),
            "run": "",
        }
    )
    return store.location


def _counted(sets: Sets) -> Counted:
    """Counts of sets; a neuron of a set fires at every token."""
    members = np.unpackbits(sets.neurons, axis=1, bitorder="little").astype(np.int32)
    return Counted(sets.ids, sets.tokens, members * sets.tokens[:, None].astype(np.int32),
                   sets.expert_sizes)  # fmt: skip


def _corpus(tokens: np.ndarray) -> tuple[list[Instruction], list[Prompt]]:
    instructions, prompts = [], []
    for row, length in enumerate(tokens.tolist()):
        source = ("human", "ai")[row // len(CATEGORIES) % 2]
        category = CATEGORIES[row % len(CATEGORIES)]
        origin = f"{source}-{category}-{row // (2 * len(CATEGORIES)) % 12}:{row}"
        instructions.append(
            Instruction(f"i{row}", category, source=source, origin=origin, instruction="text")
        )
        prompts.append(Prompt(f"i{row}", (0,) * length, ((0, length),)))
    return instructions, prompts


def _sets(rows: np.ndarray, tokens: np.ndarray, bits: np.ndarray) -> Sets:
    none = np.zeros((len(rows), 0), np.int32)
    sizes = np.bitwise_count(bits).sum(1, dtype=np.int32)[:, None]
    ids = tuple(f"i{row}" for row in rows)
    experts = none.astype(np.uint8)
    return Sets(ids, tokens, bits, np.ones_like(sizes), sizes, experts, none, none, SPACE)


# -- what is timed ------------------------------------------------------------------------------


def in_process(call: Callable[..., dict[str, Any]], *arguments: object) -> dict[str, Any]:
    """The result of a call in a fresh process, with its peak memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(call, arguments)


def timed_analysis(location: str, options: AnalysisOptions) -> dict[str, Any]:
    started = time.perf_counter()
    result = analyse(Run(location), options)
    seconds = time.perf_counter() - started
    neurons = result.components["neurons"]
    return {
        "seconds": seconds,
        "peak_mb": _peak_mb(),
        "specific": {
            name: np.flatnonzero(row).tolist()
            for name, row in zip(neurons.test.categories, neurons.test.specific, strict=True)
        },
        "general": np.flatnonzero(neurons.generality.general).tolist(),
    }


def timed_stream(location: str) -> dict[str, Any]:
    """Membership of all instructions, and the sets of a small sample of them."""
    run = Run(location)
    before = time.process_time()
    loaded = load(run, AnalysisOptions(pair_limit=600, pair_sample=600))
    seconds = time.process_time() - before
    megabytes = len(loaded.labels.ids) * SPACE.neurons / 8e6
    return {"rate": megabytes / seconds, "peak_mb": _peak_mb()}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def check_planted(specific: dict[str, list[int]], general: list[int]) -> None:
    """Exit unless the planted components were found."""
    if general != list(range(GENERAL)):
        raise SystemExit(f"general components: {len(general)} found, {GENERAL} planted")
    for at, name in enumerate(CATEGORIES):
        start = GENERAL + UNIQUE * at
        found = np.array(specific[name])
        right = int(((found >= start) & (found < start + UNIQUE)).sum())
        if right < 0.95 * UNIQUE or len(found) - right > 0.1 * len(found):
            raise SystemExit(f"{name}: {right} of {UNIQUE} planted ones found, {len(found)} in all")


# -- plain NumPy --------------------------------------------------------------------------------


def compare_with_plain(run: Run, draws: int, plain_draws: int) -> list[tuple[str, ...]]:
    """Rows (step, plain seconds, our seconds, ratio); each step's results are compared first."""
    bits = run.sets.neurons
    labels = run.labels["category"].to_pylist()
    codes = np.array([CATEGORIES.index(label) for label in labels])
    rng = np.random.default_rng(0)
    permuted = permuted_codes(codes, np.zeros(len(codes), int), draws, rng)
    weights = bootstrap_weights(codes, np.arange(len(codes)), draws, rng)
    values = pair_matrix(intersections(bits))
    count = len(CATEGORIES)
    scale = draws / plain_draws
    steps = (
        ("all pairs", lambda: plain_pairs(bits), lambda: intersections(bits), 1.0),
        ("category matrix", lambda: plain_matrix(values, codes),
         lambda: category_matrix(values, codes, CATEGORIES).mean, 1.0),
        ("prevalence", lambda: plain_prevalence(bits, codes),
         lambda: np.stack([column_counts(bits[codes == c]) for c in range(count)]), 1.0),
        (f"{draws} permutations",
         lambda: np.stack([plain_matrix(values, p) for p in permuted[:plain_draws]]),
         lambda: permutation_draws(values, permuted, count).means(), scale),
        (f"{draws} bootstraps",
         lambda: np.stack([plain_bootstrap(values, codes, w) for w in weights[:plain_draws]]),
         lambda: weighted_sums(values, codes, weights, count).means(), scale),
    )  # fmt: skip
    rows = []
    for name, plain, ours, times in steps:
        seconds, expected = _timed(plain)
        fast, found = min((_timed(ours) for _ in range(3)), key=lambda pair: pair[0])
        np.testing.assert_allclose(found[: len(expected)], expected, rtol=1e-9)
        seconds *= times
        rows.append((name, f"{seconds:.2f}", f"{fast:.3f}", f"{seconds / fast:.1f}"))
    return rows


def _timed(call: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def plain_pairs(bits: np.ndarray) -> np.ndarray:
    """|S_I & S_K| by population count, row by row."""
    words = bits.view(np.uint64)
    return np.stack([np.bitwise_count(words & row).sum(1, dtype=np.int64) for row in words])


def plain_matrix(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """M by taking out each block."""
    out = np.zeros((len(CATEGORIES),) * 2)
    for a in range(len(out)):
        for b in range(len(out)):
            block = values[np.ix_(codes == a, codes == b)]
            out[a, b] = block[~np.eye(len(block), dtype=bool)].mean() if a == b else block.mean()
    return out


def plain_bootstrap(values: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """M of a resample, by taking its rows; a pair of one instruction with itself is left out."""
    rows = np.repeat(np.arange(len(codes)), weights.astype(np.int64))
    out = np.zeros((len(CATEGORIES),) * 2)
    for a in range(len(out)):
        for b in range(len(out)):
            left, right = rows[codes[rows] == a], rows[codes[rows] == b]
            out[a, b] = values[np.ix_(left, right)][left[:, None] != right].mean()
    return out


def plain_prevalence(bits: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Members per category by unpacking everything."""
    return np.stack(
        [
            np.unpackbits(bits[codes == c], axis=1, bitorder="little").sum(0, dtype=np.int64)
            for c in range(len(CATEGORIES))
        ]
    )


if __name__ == "__main__":
    main()
