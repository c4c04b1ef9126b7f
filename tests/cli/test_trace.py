"""`sparcom trace` and `Model.trace`: where units fire, in instructions of a run and in texts."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from plain_traces import plain_traces
from safetensors.torch import load_file, save_file
from tiny_runs import records, save_tiny_llm, write_corpus

from sparcom import InputError, Instruction, Model, Run
from sparcom.cli.main import main
from sparcom.config import RunConfig
from sparcom.planning.options import engine_options
from sparcom.planning.prompts import PromptMaker
from sparcom.tracing.of_run import top_instructions

UNITS = ["0:5", "2:40"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trace")
    save_tiny_llm(folder / "model")
    write_corpus(folder / "c.jsonl", records(12))
    given = ["--model", str(folder / "model"), "--corpus", str(folder / "c.jsonl"), "--cpus", "1",
             "--dtype", "float32", "--part-size", "5", "--out", str(folder / "run")]  # fmt: skip
    assert main(["count", *given]) == 0
    return folder


def test_the_top_instructions_are_those_of_highest_frequency(work: Path) -> None:
    run = Run(work / "run")
    index = np.array([5, 2 * 56 + 40])
    ids = run.labels["id"].to_pylist()
    p = np.array([run.frequencies(name)[index] for name in ids])
    tokens = run.labels["n_counted"].to_pylist()
    for column, best in enumerate(top_instructions(run, index, 4)):
        by = sorted(range(len(ids)), key=lambda i: (-p[i, column], -tokens[i]))
        order = [i for i in by if p[i, column] > 0][:4]
        assert [one.id for one in best] == [ids[i] for i in order]
        np.testing.assert_allclose([one.p for one in best], p[order, column], rtol=1e-6)


def test_a_trace_of_a_run_equals_plain_hooks(work: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "trace.parquet"
    words = [word for unit in UNITS for word in ("--unit", unit)]
    given = [
        *words,
        "--id",
        "i03",
        "--text",
        "why is the sea blue",
        "--out",
        str(out),
        "--cpus",
        "1",
    ]
    assert main(["trace", str(work / "run"), *given]) == 0
    shown = capsys.readouterr().out
    table = pq.read_table(out).to_pandas()
    config = RunConfig.from_json(Run(work / "run").manifest["config"])
    maker = PromptMaker(config, engine_options(config))
    text = records(12)[3]["instruction"]
    items = [Instruction("i03", "", instruction=text),
             Instruction("text 1", "", instruction="why is the sea blue")]  # fmt: skip
    plain = plain_traces(work / "model", maker.prompts(items), maker.space)
    for name, item in zip(("i03", "text 1"), items, strict=True):
        for unit, index in zip(UNITS, (5, 2 * 56 + 40), strict=True):
            layer, number = (int(part) for part in unit.split(":"))
            rows = table[(table.id == name) & (table.layer == layer) & (table.unit == number)]
            assert "".join(rows.token) == item.instruction
            np.testing.assert_allclose(
                rows[["gate", "up", "h"]].to_numpy(), plain[name][:, index], rtol=1e-4, atol=2e-5
            )
            line = f"{name}: fires at {rows.fired.sum()} of {len(rows)} tokens"
            assert line in shown.split(f"unit {unit}")[1]
    assert shown.rstrip().endswith(f"table: {out}")


def test_without_a_text_the_top_instructions_are_traced(work: Path, capsys) -> None:
    assert (
        main(["trace", str(work / "run"), "--unit", "0:5", "--top", "2", "--json", "--cpus", "1"])
        == 0
    )
    rows = json.loads(capsys.readouterr().out)["rows"]
    best = [one.id for one in top_instructions(Run(work / "run"), np.array([5]), 2)[0]]
    assert list(dict.fromkeys(row["id"] for row in rows)) == best
    fired = [row["fired"] for row in rows if row["id"] == best[0]]
    assert np.isclose(np.mean(fired), Run(work / "run").frequencies(best[0])[5])


def test_a_model_traces_texts(work: Path) -> None:
    texts = ["sort the words", "add seven"]
    with Model(str(work / "model"), dtype="float32", cpus=1) as model:
        traces = model.trace(texts, UNITS)
        counts = model.count(texts)
        with pytest.raises(InputError, match="no neuron"):
            model.trace(texts, ["9:1"])
    index = traces.neurons
    fired = np.stack([one.sum(0) for one in traces.fired])
    np.testing.assert_array_equal(fired, counts.neurons[:, index])
    assert traces.names() == UNITS


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["--unit", "x"], "trace: unit 'x': expected LAYER:UNIT"),
        (["--unit", "0:5", "--id", "none"], "no instruction has the id 'none'"),
        (["--unit", "0:5", "--text", " "], "trace: a text is blank"),
        (["--unit", "0:5", "--top", "0"], "trace: top: must be at least 1, got 0"),
        (["--unit", "0:5", "--out", "t.txt"], "trace: out t.txt: expected a .csv or .parquet file"),
    ],
)
def test_what_cannot_be_traced_is_one_line(work: Path, given: list[str], line: str, capsys) -> None:
    assert main(["trace", str(work / "run"), *given]) == 2
    seen = capsys.readouterr().err
    assert line in seen
    assert seen.count("\n") == 1


def test_another_model_in_its_place_is_refused(work: Path, capsys) -> None:
    weights = work / "model/model.safetensors"
    kept = weights.read_bytes()
    tensors = load_file(weights)
    tensors["model.norm.weight"] *= 2
    save_file(tensors, weights, {"format": "pt"})
    try:
        assert main(["trace", str(work / "run"), "--unit", "0:5", "--cpus", "1"]) == 2
        assert "its weights are not those of the run" in capsys.readouterr().err
    finally:
        weights.write_bytes(kept)
