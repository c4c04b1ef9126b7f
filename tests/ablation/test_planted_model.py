"""A model whose chosen neurons fire for one category's marker only: found exactly, and ablated."""

import json
from pathlib import Path

import pytest
import torch
from tiny_runs import save_tiny_llm, write_corpus
from transformers import AutoModelForCausalLM, AutoTokenizer

from sparcom.ablation.ablate import ablate
from sparcom.ablation.options import AblationOptions
from sparcom.analysis.analyse import analyse
from sparcom.cli.main import main
from sparcom.component_list import (
    COMPONENT_SCHEMA,
    component_indices,
    write_components,
)
from sparcom.report.page import write_report
from sparcom.store import Run

MARKER, PLANTED = "~", [4, 17, 33]
WORDS = ("sort", "the", "words", "sum", "why", "is", "sea", "blue")


def plant(folder: Path) -> None:
    """Layer 0's neurons PLANTED fire for the marker alone and raise the score of "z" after it.

    Dimension 0 of the residual stream says "marker", 1 is the planted neurons' output; nothing else
    reads or writes them, attention writes nothing, and no other neuron fires for the marker.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (marker,), (answer,) = (tokenizer.encode(c, add_special_tokens=False) for c in (MARKER, "z"))
    with torch.no_grad():
        embedding = model.model.embed_tokens.weight
        embedding[:, :2] = 0
        embedding[:, 0] = -1
        embedding[marker] = 0
        embedding[marker, 0] = 1
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.gate_proj.weight[:, :2] = 0
            layer.mlp.up_proj.weight[:, :2] = 0
            layer.mlp.down_proj.weight[:2] = 0
        mlp = model.model.layers[0].mlp
        # Elsewhere the gate is so far below 0 that f of it is 0 in bfloat16's sums.
        for weight, scale in ((mlp.gate_proj.weight, 10), (mlp.up_proj.weight, 1)):
            weight[PLANTED] = 0
            weight[PLANTED, 0] = scale
        mlp.down_proj.weight[:, PLANTED] = 0
        mlp.down_proj.weight[1, PLANTED] = 1
        model.lm_head.weight[:, 1] = 0
        model.lm_head.weight[answer, 1] = 3
    model.save_pretrained(folder)


def corpus_rows() -> list[dict]:
    """120 instructions of the same words; those of MATH end with the marker."""
    rows = []
    for k in range(120):
        category = ("QA", "MATH", "SUM")[k % 3]
        text = " ".join(WORDS[(k // 3 * j + j * j) % len(WORDS)] for j in range(1, 5 + k // 3 % 6))
        rows.append(
            {
                "id": f"i{k:03}",
                "category": category,
                "source": ("human", "ai")[k // 3 % 2],
                "instruction": f"{text} {MARKER if category == 'MATH' else 'q'}",
                "reference": "z",
            }
        )
    return rows


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
    result = analyse(Run(run))
    found = [r for r in result.tables["specific_neurons"].to_pylist() if r["category"] == "MATH"]
    assert sorted((r["layer"], r["unit"]) for r in found) == [(0, unit) for unit in PLANTED]
    assert all(r["q"] < 0.05 and r["prevalence"] == 1 and r["elsewhere"] == 0 for r in found)


def test_ablating_them_removes_their_effect(run: str, tmp_path: Path) -> None:
    opened = Run(run)
    table = analyse(opened).tables["specific_neurons"]
    table = table.filter([c == "MATH" for c in table["category"].to_pylist()])
    listed = tmp_path / "planted.parquet"
    write_components(listed, table.select(COMPONENT_SCHEMA.names))
    assert component_indices(table, opened.space).neurons.tolist() == PLANTED
    words = ("unique:MATH", str(listed), "specific:3:MATH")
    result = ablate(opened, AblationOptions(targets=words, draws=19, threads=1))
    assert [t.index.tolist() for t in result.targets] == [PLANTED] * 3
    for effects, beyond in zip(result.effect, result.beyond, strict=True):
        of = dict(zip(result.categories, effects, strict=True))
        assert of["QA"].value == of["SUM"].value == 0  # no planted neuron fires there
        assert of["MATH"].value > 0.5
        assert of["MATH"].p == 0.05
        assert beyond[result.categories.index("MATH")].low > 0.5


def test_the_command(run: str, capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    given = ["ablate", run, "--target", "unique", "--how", "mean", "--draws", "3", "--cpus", "1"]
    assert main([*given, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {r["target"] for r in rows} >= {"unique:MATH"}
    page = Path(write_report(run)).read_text()
    assert "Without the set unique:MATH the model loses more than without random ones" in page
    stored = Run(run).store.read_table("ablation").to_pylist()
    assert stored == rows
    few = ["--target", "top:4", "--draws", "2", "--limit", "3", "--cpus", "1"]
    assert main(["ablate", run, *few]) == 0
    text = capsys.readouterr().out
    assert "top:4: 4 neurons ablated (zero)" in text
    assert "2 random sets bound every p" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "rare"], "target 'rare' is not known; expected general, unique"),
        (["--target", "unique:CODE"], "expected a category of the run (QA, MATH, SUM)"),
        (["--target", "unique:QA"], "is empty in this run"),
        (["--target", "top:0"], "expected a number of at least 1, got '0'"),
        (["--target", "top:150"], "too few are left to draw matched random ones"),
        (["--family", "experts"], "the model has no routed experts"),
        (["--how", "route"], "only experts can be routed around"),
        (["--draws", "0"], "draws: must be at least 1, got 0"),
        (["--low", "0.9"], "expected 0 <= low < high <= 1"),
    ],
)
def test_what_is_refused(run: str, capsys, arguments: list[str], message: str) -> None:
    capsys.readouterr()
    assert main(["ablate", run, *arguments]) == 2
    assert message in capsys.readouterr().err
