"""Traced examples: the right instructions, marked where a plain model fires; top tokens by hand."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from plain_traces import plain_traces
from tiny_runs import records, save_tiny_llm, write_corpus

from sparcom import InputError, Instruction, Run, analyse
from sparcom.cli.main import main
from sparcom.config import RunConfig
from sparcom.planning.options import engine_options
from sparcom.planning.prompts import PromptMaker
from sparcom.tracing.examples import few_instructions, named_units, why_not, write_examples
from sparcom.tracing.of_run import Top, top_instructions


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    save_tiny_llm(folder / "model")
    write_corpus(folder / "c.jsonl", records(24))
    given = ["--model", str(folder / "model"), "--corpus", str(folder / "c.jsonl"), "--cpus", "1",
             "--dtype", "float32", "--rule", "top:0.2", "--out", str(folder / "run")]  # fmt: skip
    assert main(["run", *given, "--examples", "2"]) == 0
    return folder


def test_every_named_neuron_has_two_of_the_six_instructions_in_which_it_fires_most(
    work: Path,
) -> None:
    run = Run(work / "run")
    units = named_units(run)
    assert {run.space.describe_neuron(index)[0] for index in units} == {0, 1, 2}
    rows = run.table("traced_examples").to_pylist()
    for index, tops in zip(units, top_instructions(run, np.array(list(units)), 6), strict=True):
        layer, kind, _, unit = run.space.describe_neuron(index)
        mine = [r for r in rows if (r["layer"], r["kind"], r["unit"]) == (layer, kind, unit)]
        assert len(mine) == min(2, len(tops))
        assert [r["id"] for r in mine] == [tops[r["rank"]].id for r in mine]
        assert mine == sorted(mine, key=lambda r: -r["frequency"])
        assert {r["why"] for r in mine} == {units[index]}
        for row in mine:
            assert len(row["text"]) == len(row["fired"]) == row["tokens"]
            assert np.isclose(np.mean(row["fired"]), row["frequency"])
            assert np.isclose(row["frequency"], run.frequencies(row["id"])[index])
            assert row["category"] == run.labels["category"][
                run.labels["id"].to_pylist().index(row["id"])
            ].as_py()  # fmt: skip


def test_few_instructions_serve_all_units() -> None:
    a, b, c = (Top(name, tokens, 0.5) for name, tokens in (("a", 90), ("b", 30), ("c", 20)))
    assert few_instructions([[a, b], [b], [c, b]], 1) == ["b"]
    assert few_instructions([[a, b], [b], [c, b]], 2) == ["b", "c", "a"]
    assert few_instructions([[a, c], []], 1) == ["c"]


def test_few_instructions_cost_less_than_the_first_of_each() -> None:
    rng = np.random.default_rng(0)
    every = [Top(str(n), int(rng.integers(5, 200)), 0.5) for n in range(40)]
    tops = [[every[i] for i in rng.permutation(40)[:6]] for _ in range(30)]
    chosen = few_instructions(tops, 2)
    assert all(sum(top.id in chosen for top in best) >= 2 for best in tops)
    cost = sum(top.tokens for top in every if top.id in chosen)
    plain = {top.id: top.tokens for best in tops for top in best[:2]}
    assert len(set(chosen)) == len(chosen)
    assert cost < sum(plain.values())


def test_tokens_are_marked_where_the_plain_model_fires(work: Path) -> None:
    run = Run(work / "run")
    rows = run.table("traced_examples").to_pylist()
    config = RunConfig.from_json(run.manifest["config"])
    maker = PromptMaker(config, engine_options(config))
    text = {record["id"]: record["instruction"] for record in records(24)}
    items = [Instruction(name, "", instruction=text[name]) for name in {r["id"] for r in rows}]
    plain = plain_traces(work / "model", maker.prompts(items), maker.space)
    for row in rows:
        index = run.space.neuron_index(row["layer"], row["kind"], -1, row["unit"])
        gate = plain[row["id"]][:, index, 0]
        sure = np.abs(gate) > 1e-4
        np.testing.assert_array_equal(np.array(row["fired"])[sure], (gate > 0)[sure])
        assert "".join(row["text"]) == text[row["id"]]


def test_top_tokens_have_the_lift_that_a_count_by_hand_has(work: Path) -> None:
    run = Run(work / "run")
    rows = run.table("traced_examples").to_pylist()
    units = np.array(list(named_units(run)))
    config = RunConfig.from_json(run.manifest["config"])
    maker = PromptMaker(config, engine_options(config))
    text = {record["id"]: record["instruction"] for record in records(24)}
    items = [Instruction(name, "", instruction=text[name]) for name in {r["id"] for r in rows}]
    prompts = maker.prompts(items)
    plain = plain_traces(work / "model", prompts, maker.space)
    read: Counter = Counter()
    fired = {int(unit): Counter() for unit in units}
    for prompt in prompts:
        ids = [prompt.token_ids[at] for a, b in prompt.counted for at in range(a, b)]
        read.update(ids)
        for unit in fired:
            fired[unit].update(t for t, g in zip(ids, plain[prompt.id][:, unit, 0], strict=True)
                               if g > 0)  # fmt: skip
    total = sum(read.values())
    stored = run.table("example_tokens").to_pylist()
    assert stored
    for row in stored:
        unit = run.space.neuron_index(row["layer"], row["kind"], -1, row["unit"])
        token = row["token_id"]
        assert (row["read"], row["fired"]) == (read[token], fired[unit][token])
        share = sum(fired[unit].values()) / total
        assert np.isclose(row["lift"], fired[unit][token] / read[token] / share)
        assert row["read"] >= 3


def test_what_keeps_a_run_from_having_examples() -> None:
    assert why_not(RunConfig()) is None
    assert why_not(RunConfig(examples=0)) == "--examples 0"
    assert "keeps no counts" in str(why_not(RunConfig(retain="sets")))
    assert "needs GPUs" in str(why_not(RunConfig(gpus=1)))


def test_without_counts_it_is_one_line(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "sets"
    given = ["--model", str(work / "model"), "--corpus", str(work / "c.jsonl"), "--cpus", "1"]
    assert main(["run", *given, "--retain", "sets", "--out", str(out)]) == 0
    run = Run(out)
    assert "traced_examples" not in run.tables
    analyse(run)
    with pytest.raises(InputError, match="did not retain its counts"):
        write_examples(run, 2)
