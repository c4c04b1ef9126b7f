"""`sparcom compare`: two runs, a trajectory, the noise floor, and what is refused."""

import json
from pathlib import Path

import pytest
from tiny_runs import records, save_tiny_llm, write_corpus

from sparcom.analysis.tuning.compare import compare
from sparcom.cli.main import main
from sparcom.report.page import write_report
from sparcom.store import Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One tiny model in two dtypes, and the first run again with other sets."""
    work = tmp_path_factory.mktemp("compare")
    model, corpus = save_tiny_llm(work / "model"), write_corpus(work / "c.jsonl", records(12))
    for name, dtype in (("bf16", "bfloat16"), ("fp32", "float32"), ("again", "bfloat16")):
        given = ["--model", str(model), "--corpus", str(corpus), "--out", str(work / name)]
        assert main(["count", *given, "--dtype", dtype, "--cpus", "1", "--rule", "top:0.1"]) == 0
    return [str(work / name) for name in ("bf16", "fp32", "again")]


def test_two_runs(runs: list[str], capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    assert main(["compare", runs[0], runs[2], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["families"]["neurons"]["all"]["overlap"]["value"] == 1.0
    assert main(["compare", runs[0], runs[1], "--noise-floor", runs[0], runs[1]]) == 0
    text = capsys.readouterr().out
    assert "not beyond it" in text
    assert (Path(runs[1]) / "analysis/alteration_neurons.parquet").is_file()
    summary = Run(runs[1]).store.read_table("alteration_summary").to_pylist()
    assert len(summary) == 4 * 5 + 3 * 2  # what compares categories has no row for all
    shown = next(r for r in summary if r["figure"] == "overlap" and r["category"] == "all")
    page = Path(write_report(runs[1])).read_text()
    assert "Change by tuning, against bf16" in page
    assert f"{shown['value']:.3f}" in page


def test_a_trajectory(runs: list[str], capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    assert main(["compare", *runs]) == 0
    text = capsys.readouterr().out
    assert "previous" in text
    assert "warning: no noise floor given" in text
    assert main(["compare", *runs, "--noise-floor", *runs[:2], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not any("noise floor" in text for text in found["warnings"])
    assert any("undetermined: too few clusters" in text for text in found["warnings"])
    figures = {row["figure"] for row in found["rows"]}
    assert figures == {
        "overlap", "more than the others", "effective instructions", "layer shift", "noise floor",
        "beyond noise floor", "clusters",
    }  # fmt: skip


def test_the_options_of_an_analysis(
    runs: list[str], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["--permutations", "50", "--bootstraps", "40"]
    assert main(["report", runs[0], *few, "--high", "0.7", "--low", "0.2", "--seed", "3"]) == 0
    page = (Path(runs[0]) / "report.html").read_text()
    assert "general from q = 0.7, unique up to 0.2 elsewhere" in page
    assert "50 permutations, 40 bootstraps, seed 3" in page
    value, given = {}, []

    def spy(*runs: Run, **named: object) -> object:
        given.append(runs[2])
        return compare(*runs, **named)

    monkeypatch.setattr("sparcom.analysis.tuning.compare.compare", spy)
    for seed in ("0", "1", "0"):
        capsys.readouterr()
        assert main(["compare", runs[0], runs[1], *few, "--seed", seed, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["families"]["neurons"]["all"]["layer_shift"]
        assert value.setdefault(seed, found) == found
    assert value["0"]["value"] == value["1"]["value"]
    assert [(o.seed, o.permutations) for o in given] == [(0, 50), (1, 50), (0, 50)]
    for command in (["report", runs[0]], ["compare", *runs[:2]]):
        assert main([*command, "--high", "0.1", "--low", "0.3"]) == 2
        assert "low, high: expected 0 <= low < high <= 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["RUN"], "two runs or more"), (["RUN", "none"], "no run here")],
)
def test_what_is_refused(runs, capsys, arguments: list[str], message: str) -> None:
    capsys.readouterr()
    given = [runs[0] if word == "RUN" else word for word in arguments]
    assert main(["compare", *given]) == 2
    assert message in capsys.readouterr().err
