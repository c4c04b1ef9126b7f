"""A model whose chosen neurons fire for one category's marker only: found exactly, and ablated."""

import json
from pathlib import Path

import numpy as np
import pytest
from planted_model import DECOYS, PLANTED, corpus_rows, plant
from tiny_runs import save_tiny_llm, write_corpus

from sparcom.ablation import experiment
from sparcom.ablation.ablate import ablate
from sparcom.ablation.options import AblationOptions
from sparcom.analysis.analyse import analyse
from sparcom.analysis.options import AnalysisOptions
from sparcom.cli.main import main
from sparcom.component_list import (
    COMPONENT_SCHEMA,
    component_indices,
    component_table,
    write_components,
)
from sparcom.config import RunConfig
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.corpus.schema import Instruction
from sparcom.planning.prompts import PromptMaker, prompts_of
from sparcom.report.page import write_report
from sparcom.store import Run

FINE = AnalysisOptions(least_difference=0.05)  # the marker is one token of ten


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    work = tmp_path_factory.mktemp("planted")
    model = save_tiny_llm(work / "model", tie_word_embeddings=False)
    plant(model)
    corpus = write_corpus(work / "c.jsonl", corpus_rows())
    out = str(work / "run")
    given = ["--model", str(model), "--corpus", str(corpus), "--out", out, "--cpus", "1"]
    assert main(["count", *given, "--template", "raw", "--rule", "fixed:0.01"]) == 0
    corpus.unlink()  # what is measured is what was counted, whatever becomes of the file
    return out


def test_the_pipeline_finds_exactly_the_planted_neurons(run: str) -> None:
    result = analyse(Run(run), FINE)
    found = [r for r in result.tables["specific_neurons"].to_pylist() if r["category"] == "MATH"]
    assert sorted((r["layer"], r["unit"]) for r in found) == [(0, unit) for unit in PLANTED]
    assert all(r["q"] < 0.05 and r["prevalence"] == 1 for r in found)
    assert all(r["frequency_QA"] == r["frequency_SUM"] == 0 for r in found)


@pytest.mark.parametrize("word", ["unique:MATH", "specific:3:MATH", "planted.parquet"])
def test_ablating_them_is_found_to_matter_for_their_category(
    run: str, tmp_path: Path, word: str
) -> None:
    opened = Run(run)
    table = analyse(opened, FINE).tables["specific_neurons"]
    table = table.filter([c == "MATH" for c in table["category"].to_pylist()])
    if word.endswith(".parquet"):
        listed = str(tmp_path / word)
        write_components(listed, table.select(COMPONENT_SCHEMA.names))
        word = f"{listed}:MATH"
    assert component_indices(table, opened.space).neurons.tolist() == PLANTED
    result = ablate(opened, AblationOptions(targets=(word,), threads=1, random_sets=199))
    (target,) = result.targets
    assert [one.index.tolist() for one in target.found] == [PLANTED] * 2
    math, qa, total = (result.of(word, name) for name in ("MATH", "QA", "all"))
    assert qa.effect == result.of(word, "SUM").effect == 0  # no planted neuron fires there
    assert math.selectivity == math.effect > 0.3
    assert total.effect == pytest.approx(math.effect / 3)
    assert (math.verdict, math.p) == ("matters", pytest.approx(0.005))
    assert math.selectivity_random_high < 0.2 * math.selectivity
    assert math.kl > 0.1
    assert qa.kl == qa.changed == 0
    assert max(abs(math.frequency_difference), abs(math.contribution_difference)) < 0.1
    # Decoys lower the loss of every category: a rule on effects alone would name them.
    assert qa.random_high > 0


def test_the_dose_response_is_monotone_and_of_that_category_alone(run: str, capsys) -> None:
    """The planted neurons raise the answer's score in proportion to h: at 2 it is near its most."""
    capsys.readouterr()
    given = ["ablate", run, "--target", "unique:MATH", "--how", "scale:2,1,0.5,0", "--cpus", "1"]
    assert main([*given, "--plain-sets", "0"]) == 0
    text = capsys.readouterr().out
    assert "unique:MATH: 3 neurons scaled by 0.5" in text
    rows = Run(run).store.read_table("ablation").to_pylist()
    math = [row for row in rows if row["category"] == "MATH"]
    assert [row["factor"] for row in math] == [2, 1, 0.5, 0]
    effects = [row["effect"] for row in math]
    assert effects[0] < effects[1] == 0 < effects[2] < effects[3]
    assert {row["effect"] for row in rows if row["category"] in ("QA", "SUM")} == {0}
    assert [row["verdict"] for row in math] == ["not shown", "not shown", "matters", "matters"]
    assert {row["random_sets"] for row in math} == {99}
    page = Path(write_report(run)).read_text()
    assert "No selective effect of unique:MATH scaled by 2 on MATH is shown" in page
    assert "with it scaled by 0.5 the loss of MATH rises by" in page
    assert (Path(run) / "figures" / "ablation-doses.svg").is_file()


@pytest.mark.parametrize("how", ["positive", "negative", "resample"])
def test_they_matter_where_their_gate_is_positive(run: str, capsys, how: str) -> None:
    """Elsewhere f of it is 0; and no other category's instructions end as MATH's do."""
    capsys.readouterr()
    given = ["ablate", run, "--target", "unique:MATH", "--how", how, "--cpus", "1"]
    assert main([*given, "--plain-sets", "0"]) == 0
    text = capsys.readouterr().out
    by = {row["category"]: row for row in Run(run).store.read_table("ablation").to_pylist()}
    assert {(row["how"], row["factor"]) for row in by.values()} == {(how, None)}
    page = Path(write_report(run)).read_text()
    if how == "negative":
        assert by["MATH"]["effect"] == by["QA"]["effect"] == 0
        assert by["MATH"]["verdict"] == "not shown"
        return
    assert by["MATH"]["effect"] > 0.3
    assert by["MATH"]["verdict"] == "matters"
    done = {
        "positive": "silenced where the gate is positive",
        "resample": "given the outputs of another instruction",
    }[how]
    assert f"unique:MATH: 3 neurons {done}" in text
    assert f"unique:MATH matters for MATH: with it {done} the loss of MATH rises by" in page
    if how == "positive":  # the whole effect of silencing them
        assert by["QA"]["effect"] == by["SUM"]["effect"] == 0
        assert main(["ablate", run, "--target", "unique:MATH", "--cpus", "1"]) == 0
        (zero,) = (row for row in Run(run).store.read_table("ablation").to_pylist()
                   if row["category"] == "MATH")  # fmt: skip
        assert by["MATH"]["effect"] == pytest.approx(zero["effect"])
    else:
        first = [row["effect"] for row in by.values()]
        for seed, same in (("0", True), ("1", False)):
            assert main([*given, "--plain-sets", "0", "--seed", seed, "--random-sets", "1"]) == 0
            rows = Run(run).store.read_table("ablation").to_pylist()
            assert ([row["effect"] for row in rows] == first) is same


def test_the_answers_of_that_category_alone_become_wrong(run: str, capsys) -> None:
    pytest.importorskip("math_verify", reason="math-verify is not installed")
    capsys.readouterr()
    few = ["--random-sets", "39", "--limit", "6", "--cpus", "1"]
    given = ["ablate", run, "--target", "unique:MATH", "--how", "scale:0,1", "--behaviour", "1"]
    assert main([*given, *few]) == 0
    text = capsys.readouterr().out
    assert "warning: SUM is left out: its answers cannot be scored in both halves" in text
    rows = Run(run).store.read_table("behaviour").to_pylist()
    by = {(row["how"], row["category"]): row for row in rows}
    assert {name for _, name in by} == {"QA", "MATH", "all"}
    math = by["scale:0", "MATH"]
    assert math["metric"] == "exact match"
    assert (math["score"], math["effect"]) == pytest.approx((1, 1))
    assert math["verdict"] == "matters"
    assert math["changed"] == pytest.approx(1)
    assert by["scale:1", "MATH"]["effect"] == by["scale:1", "MATH"]["changed"] == 0
    for how in ("scale:0", "scale:1"):
        assert by[how, "QA"]["effect"] == by[how, "QA"]["changed"] == 0
    page = Path(write_report(run)).read_text()
    assert "unique:MATH matters for MATH: without it the score of MATH falls by 1.000" in page


def test_decoys_help_every_category_and_are_not_said_to_matter_for_math(
    run: str, tmp_path: Path
) -> None:
    opened = Run(run)
    listed = tmp_path / "decoys.csv"
    write_components(listed, component_table(opened.space, "neurons", np.array(DECOYS[14:17])))
    result = ablate(opened, AblationOptions(targets=(str(listed),), threads=1))
    assert all(one.effect > 0 for one in result.findings)
    assert result.of(str(listed), "MATH").verdict == "not shown"


def test_the_command(run: str, capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    given = ["ablate", run, "--target", "unique", "--how", "mean", "--cpus", "1"]
    assert main([*given, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {r["target"] for r in rows} == {"unique:MATH"}
    page = Path(write_report(run)).read_text()
    assert "unique:MATH matters for MATH: without it the loss of MATH rises by" in page
    assert "of 99 matched random sets lie between" in page
    stored = Run(run).store.read_table("ablation").to_pylist()
    assert stored == rows
    few = ["--target", "unique:MATH", "--random-sets", "5", "--limit", "4", "--cpus", "1"]
    assert main(["ablate", run, *few]) == 0
    text = capsys.readouterr().out
    assert "unique:MATH: 3 neurons ablated (zero)" in text
    assert "unique:MATH: undetermined: 5 random sets, and at least 39 are needed." in text
    assert "matters" not in text


def test_sets_that_harm_plain_text_as_much(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text that is not to suffer more is MATH's own here: no bundled text has the marker."""
    items = [Instruction(**row) for row in corpus_rows() if row["category"] == "MATH"][:6]

    def texts(maker: PromptMaker, config: RunConfig) -> list[Prompt]:
        return prompts_of(maker, config, items, scope="response")

    monkeypatch.setattr(experiment, "plain_prompts", texts)
    options = AblationOptions(targets=("unique:MATH",), threads=1, plain_sets=2)
    found = ablate(Run(run), options).of("unique:MATH", "MATH")
    assert found.plain_sets == 2
    assert found.plain_rise == pytest.approx(found.effect, rel=0.1)
    assert found.plain_size > found.size
    assert 0.3 < found.plain_rise_random / found.plain_rise < 3
    # They are of no category: what they cost MATH they cost the others too.
    assert found.plain_effect > 0
    assert found.plain_selectivity < 0.5 * found.selectivity
    assert (
        "enlarged until the loss of plain text rises as much" in Path(write_report(run)).read_text()
    )


def test_no_comparison_is_made_where_none_is_fair(run: str, capsys, tmp_path: Path) -> None:
    opened, listed = Run(run), str(tmp_path / "busy.csv")
    second = opened.space.neuron_slices()[1]
    often = opened.profile().frequency.mean(0)[second]
    busiest = np.sort(np.argsort(often)[-20:]) + second.start  # of 56: none of the others fire so
    write_components(listed, component_table(opened.space, "neurons", busiest))
    capsys.readouterr()
    assert main(["ablate", run, "--target", listed, "--cpus", "1"]) == 0
    assert f"No fair comparison exists for {listed}" in capsys.readouterr().out
    rows = opened.store.read_table("ablation").to_pylist()
    assert {row["verdict"] for row in rows} == {"no fair comparison"}
    assert {row["p"] for row in rows} == {row["random"] for row in rows} == {None}
    assert {row["random_sets"] for row in rows} == {0}
    assert rows[0]["frequency_difference"] > 0.1
    page = Path(write_report(run)).read_text()
    assert f"No fair comparison exists for {listed}, and none is made: it fires on" in page
    assert f"{listed} matters for" not in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "rare"], "target 'rare' is not known; expected general, unique"),
        (["--target", "unique:CODE"], "expected a category of the run (QA, MATH, SUM)"),
        (["--target", "unique:QA"], "is empty in this run"),
        (["--target", "top:0"], "expected a number of at least 1, got '0'"),
        (["--target", "top:150"], "too few are left to draw matched random ones"),
        (["--family", "experts"], "the model has no routed experts"),
        (["--how", "route"], "only experts have a router, for --how route"),
        (["--random-sets", "0"], "random-sets: must be at least 1, got 0"),
        (["--run-code"], "run-code and aliases score answers; give behaviour too"),
        (["--behaviour", "-1"], "behaviour: must be at least 0, got -1"),
        (["--behaviour", "4", "--aliases", "none.csv"], "aliases none.csv: cannot be read"),
        (["--limit", "1"], "limit: must be at least 2, got 1"),
        (["--low", "0.9"], "expected 0 <= low < high <= 1"),
    ],
)
def test_what_is_refused(run: str, capsys, arguments: list[str], message: str) -> None:
    capsys.readouterr()
    assert main(["ablate", run, *arguments]) == 2
    assert message in capsys.readouterr().err
