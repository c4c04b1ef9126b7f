"""`choose_batch_tokens`: the fastest of a few sizes, by an engine and a clock that are made up."""

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_model
from transformers_tools import assert_equal, count_all, load, make_prompts

from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.engines.base import EngineOptions, PromptError
from sparcom.engines.batch_size import BatchSize, choose_batch_tokens, least_tokens
from sparcom.engines.load import load_engine
from sparcom.engines.packing import Pass, plan_passes

MANY = 10**9


class Engine:
    """An engine whose passes take as many seconds as a function of their rows says.

    attention: further seconds for each pair of tokens of one prompt.
    read: rows of every pass that was run. fails: the size whose passes fail.
    """

    def __init__(
        self,
        seconds: Callable[[int], float],
        slots: int = 64,
        fails: int = 0,
        attention: float = 0.0,
    ) -> None:
        self.seconds, self.slots, self.fails = seconds, slots, fails
        self.attention = attention
        self.rows, self.now, self.read = 0, 0.0, list[int]()

    def set_batch_tokens(self, rows: int) -> None:
        self.rows = rows

    def plan(self, lengths: Sequence[int]) -> list[Pass]:
        return plan_passes(lengths, self.rows, self.slots)

    def count(self, prompts: Sequence[Prompt]) -> Iterator[Counted]:
        if self.rows == self.fails:
            raise PromptError([p.id for p in prompts], "out of memory")
        lengths = [len(p.token_ids) for p in prompts]
        for one in self.plan(lengths):
            pairs = sum(lengths[at] ** 2 for at in one.prompts)
            self.now += self.seconds(one.rows) + self.attention * pairs
            self.read.append(one.rows)
            yield SimpleNamespace()  # type: ignore[misc]

    def clock(self) -> float:
        return self.now


def prompts(lengths: Sequence[int]) -> list[Prompt]:
    return [Prompt(f"i{at}", (1,) * n, ((0, n),)) for at, n in enumerate(lengths)]


def choose(engine: Engine, lengths: Sequence[int], **changes: Any) -> BatchSize:
    given = {"rows": 1024, "tokens": MANY, **changes}
    return choose_batch_tokens(engine, prompts(lengths), **given, clock=engine.clock)


def test_larger_sizes_are_taken_while_each_is_faster_than_the_last() -> None:
    # A pass costs 1 s and 1 ms a row up to 4096 rows, and 2 ms a row beyond.
    engine = Engine(lambda rows: 1 + 0.001 * rows * (1 if rows <= 4096 else 2))
    found = choose(engine, [128] * 512)
    assert found.rows == 4096
    # 65,536 tokens in 64, 32, 16 and 8 full passes.
    seconds = {1024: 64 * 2.024, 2048: 32 * 3.048, 4096: 16 * 5.096, 8192: 8 * 17.384}
    expected = {rows: 65536 / value for rows, value in seconds.items()}
    assert found.tokens_per_s == pytest.approx(expected)
    assert found.why == ""
    assert engine.read == [1024] * 2 + [2048] * 2 + [4096] * 2 + [8192] * 2


def test_smaller_sizes_are_tried_if_no_larger_one_is_faster() -> None:
    engine = Engine(lambda rows: (rows / 1024) ** 2 + 0.2)
    found = choose(engine, [64] * 1024)
    assert found.rows == 512
    assert list(found.tokens_per_s) == [1024, 2048, 512, 256]


def test_rows_that_stay_empty_count_against_a_size() -> None:
    """A pass of any size takes a second, but one of 2,048 rows holds all of the two prompts; and 64
    instructions of 10 tokens, as many as have slots, fill no more than 640 rows."""
    fast = Engine(lambda rows: 1.0)
    assert choose(fast, [700, 700]).rows == 2048
    slots = Engine(lambda rows: 0.1 + rows / 1000)
    assert choose(slots, [10] * 1000).rows == 512


def test_long_prompts_weigh_with_every_size_as_they_do_in_the_corpus() -> None:
    """Passes that are packed longest first are of long prompts, then of short ones. Here a row
    takes 1 ms in each size, and attention a third of the time: no size is faster by itself."""
    lengths = np.random.default_rng(0).lognormal(4.5, 0.9, 300).clip(8, 1000).astype(int).tolist()
    engine = Engine(lambda rows: rows * 1e-3, attention=1e-6)
    found = choose(engine, lengths)
    assert found.rows == 1024
    for size, speed in found.tokens_per_s.items():
        whole = Engine(engine.seconds, attention=engine.attention)
        whole.set_batch_tokens(size)
        list(whole.count(prompts(lengths)))
        assert speed == pytest.approx(sum(lengths) / whole.now, rel=0.05)


def test_equal_speeds_leave_the_size_as_it_was() -> None:
    assert choose(Engine(lambda rows: rows * 1e-3), [128] * 256).rows == 1024
    slightly = Engine(lambda rows: rows * 1e-3 * (0.98 if rows == 2048 else 1))
    assert choose(slightly, [128] * 256).rows == 1024


def test_a_small_run_is_not_measured_and_the_reason_has_its_numbers() -> None:
    engine = Engine(lambda rows: 1.0)
    found = choose(engine, [128] * 64, tokens=least_tokens(1024) - 1)
    assert (found.rows, found.tokens_per_s, engine.read) == (1024, {}, [])
    assert "122,879 prompt tokens an actor are too few" in found.why
    assert "122,880" in found.why


@pytest.mark.parametrize("tokens", [122_880, 300_000, 1_000_000, 10_000_000])
def test_measuring_reads_at_most_a_twentieth_of_the_run(tokens: int) -> None:
    engine = Engine(lambda rows: 1.0, slots=1000)  # the larger, the faster, without end
    found = choose(engine, [128] * 4096, tokens=tokens)
    assert 2 * (1024 + 2048) <= sum(engine.read) <= 0.05 * tokens
    assert found.rows == max(engine.read)
    stopped = found.rows < 16384
    assert stopped == (f"{2 * found.rows} was not measured" in found.why)


def test_a_pass_that_fails_ends_measuring_with_its_reason() -> None:
    engine = Engine(lambda rows: 1.0, fails=4096)
    found = choose(engine, [128] * 4096)
    assert found.rows == 2048
    assert found.why == "a pass of 4096 failed: out of memory"
    first = choose(Engine(lambda rows: 1.0, fails=1024), [128] * 64)
    assert (first.rows, first.tokens_per_s) == (1024, {})
    assert first.why == "a pass of 1024 failed: out of memory"


def test_what_run_json_says() -> None:
    assert BatchSize(512, {1024: 10.04, 512: 12.0}, "x").to_json() == {
        "batch_tokens": 512, "tokens_per_s": {"1024": 10.0, "512": 12.0}, "why": "x",
    }  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
def test_an_engine_that_chose_counts_as_one_that_was_given_the_number(tmp_path, family) -> None:
    """In float32 at sizes where products round by their rows, and an MoE's tiles by the size."""
    wide = {"hidden_size": 512, "num_hidden_layers": 2, "num_attention_heads": 8}
    wide |= {"moe_intermediate_size": 352} if family == "qwen3_moe" else {"intermediate_size": 1408}
    folder = save_tiny_model(tmp_path, family, torch.float32, **wide)
    read = make_prompts((1, 2, 7, 20, 33, 12, 60, 41))
    seen = []

    def choose(engine: Any) -> int:
        seen.append((engine.proof, choose_batch_tokens(engine, read, 64, MANY).rows))
        return 1024

    options = EngineOptions(
        str(folder), dtype="float32", batch_tokens=64, slots=8, threads=1, device="cpu"
    )
    chosen = load_engine("transformers", options, choose=choose)
    given = load(folder, "float32", batch_tokens=1024)
    assert_equal(count_all(chosen, read), count_all(given, read))  # type: ignore[arg-type]
    assert chosen.info == given.info
    assert chosen.info.batch_tokens == 1024
    assert chosen.proof.sites == given.proof.sites
    ((unproved, rows),) = seen
    assert unproved is None
    assert rows in (64, 128, 256, 512, 1024)
