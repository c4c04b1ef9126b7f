"""Attribution of a whole run: the planted neurons, what is stored, and what rests on it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from planted import dense_space, write_run
from planted_model import ANSWER, DECOYS, PLANTED, corpus_rows, plant
from tiny_runs import save_tiny_llm, write_corpus
from transformers import AutoModelForCausalLM, AutoTokenizer

from sparcom.ablation.halves import split_clusters, usage_of_halves
from sparcom.attribution import attribute as module
from sparcom.attribution.attribute import AttributionOptions, attribute
from sparcom.attribution.sums import Attribution
from sparcom.cli.main import main
from sparcom.errors import InputError
from sparcom.report.page import write_report
from sparcom.store import Run


def counted(work: Path, family: str = "llama", rows: list[dict] | None = None) -> str:
    model = save_tiny_llm(work / "model", family, tie_word_embeddings=False)
    if family == "llama":
        plant(model)
    corpus = write_corpus(work / "c.jsonl", rows or corpus_rows())
    out = str(work / "run")
    given = ["--model", str(model), "--corpus", str(corpus), "--out", out, "--cpus", "1"]
    assert main(["count", *given, "--template", "raw", "--rule", "fixed:0.01"]) == 0
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = counted(tmp_path_factory.mktemp("planted"))
    attribute(Run(out), AttributionOptions(limit=12, threads=1))
    return out


@pytest.mark.parametrize("rule", ["attribution", "relp"])
def test_the_planted_neurons_are_at_the_top(run: str, rule: str) -> None:
    found = Attribution(Run(run)).means(rule)
    assert set(found) == {"QA", "MATH", "SUM"}
    assert sorted(np.argsort(-found["MATH"])[:3].tolist()) == PLANTED
    helps = found["MATH"][PLANTED].min()
    assert helps > 0.05
    for other in ("QA", "SUM"):
        assert np.abs(found[other][PLANTED]).max() < 1e-3 * helps
    # Decoys that fire at the end of every instruction help every category.
    assert all(found[name][DECOYS[10:]].min() > 0 for name in found)


def test_what_is_stored_is_the_sum_over_clusters_of_what_a_model_gives(run: str) -> None:
    opened = Run(run)
    stored = Attribution(opened)
    assert stored.options["limit"] == 12
    assert stored.instructions.sum() == 36
    table = pq.read_table(Path(run) / "attribution" / "part-00000.parquet")
    row = table.to_pylist()[0]
    assert row["cluster"] == f"id:{row['ids'][0]}"  # no origin: each is a cluster of its own
    model = AutoModelForCausalLM.from_pretrained(
        opened.manifest["model"]["path"], dtype=torch.bfloat16, attn_implementation="eager"
    )
    corpus = {r["id"]: r for r in opened.store.corpus.table(["id", "token_ids"]).to_pylist()}
    ids = corpus[row["ids"][0]]["token_ids"]
    tokenizer = AutoTokenizer.from_pretrained(opened.manifest["model"]["path"])
    answer = tokenizer.encode(ANSWER, add_special_tokens=False)
    assert len(answer) == 1
    whole = torch.tensor([[*ids, *answer]])
    logits = model(input_ids=whole, use_cache=False).logits[0].float().log_softmax(-1)
    logits[len(ids) - 1, answer[0]].backward()
    expected = torch.cat([
        (layer.mlp.down_proj.weight.detach().double() * layer.mlp.down_proj.weight.grad).sum(0)
        for layer in model.model.layers
    ]).numpy()  # fmt: skip
    values = next(values for _, values in stored.rows("attribution"))[0]
    scale = np.abs(expected).max()
    assert scale > 1e-3
    np.testing.assert_allclose(values, expected, atol=0.02 * scale)  # in bfloat16


def test_halves_use_their_own_clusters_alone(run: str) -> None:
    opened = Run(run)
    labels = opened.labels
    half = split_clusters(
        labels["cluster"].to_pylist(), labels["category"].to_pylist(), np.random.default_rng(0)
    )
    of = dict(zip(labels["cluster"].to_pylist(), half.tolist(), strict=True))
    stored = Attribution(opened)
    rows = np.concatenate([values for _, values in stored.rows("relp")]).astype(np.float64)
    for h, usage in enumerate(usage_of_halves(opened, "neurons", half, "relp")):
        for c, name in enumerate(usage.categories):
            own = [
                at for at, (category, cluster) in enumerate(
                    zip(stored.categories, stored.clusters, strict=True)
                ) if category == name and of[cluster] == h
            ]  # fmt: skip
            mean = rows[own].sum(0) / stored.instructions[own].sum()
            np.testing.assert_allclose(usage.values[c], mean, rtol=1e-6, atol=1e-12)


def test_silencing_what_is_attributed_most_is_found_to_matter(run: str, capsys) -> None:
    capsys.readouterr()
    words = ["--target", "rank:attribution:3:MATH", "--target", "rank:relp:3:MATH"]
    few = ["--random-sets", "99", "--limit", "10", "--plain-sets", "0", "--cpus", "1"]
    assert main(["ablate", run, *words, *few, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    for word in ("rank:attribution:3:MATH", "rank:relp:3:MATH"):
        row = next(r for r in rows if (r["target"], r["category"]) == (word, "MATH"))
        assert (row["own"], row["size"], row["found"]) == ("MATH", 3, "on the other half")
        assert row["verdict"] == "matters"
        assert row["selectivity"] > 0.3


def test_ranked_by_prevalence_is_top(run: str, capsys) -> None:
    capsys.readouterr()
    both = ["--target", "top:4", "--target", "rank:prevalence:4"]
    few = ["--random-sets", "2", "--limit", "4", "--plain-sets", "0", "--cpus", "1"]
    assert main(["ablate", run, *both, *few, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    effects = [
        [r["effect"] for r in rows if r["target"] == name]
        for name in ("top:4", "rank:prevalence:4")
    ]
    assert effects[0] == effects[1]
    assert len(effects[0]) == 4


def test_a_stopped_one_goes_on_and_another_is_refused(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    parts = sorted((other / "attribution").iterdir())
    assert [part.name for part in parts] == [f"part-{n:05d}.parquet" for n in range(3)]
    before = [part.read_bytes() for part in parts]
    parts[1].unlink()
    with pytest.raises(InputError, match="its attribution is not finished; go on with"):
        Attribution(Run(other))
    done: list[tuple[int, int]] = []
    options = AttributionOptions(limit=12, threads=1)
    attribute(Run(other), options, progress=lambda *at: done.append(at))
    assert done == [(n, 36) for n in range(21, 37)]  # 16 again, of 36
    assert [part.read_bytes() for part in parts] == before
    monkeypatch.setattr(module, "_Measure", None)  # nothing is left to do: no model is loaded
    attribute(Run(other), options)
    monkeypatch.undo()
    with pytest.raises(InputError, match="holds an attribution with other options .*limit 12"):
        attribute(Run(other), AttributionOptions(limit=2, threads=1))
    capsys.readouterr()
    given = ["attribute", str(other), "--rule", "attribution", "--limit", "2", "--cpus", "1"]
    assert main([*given, "--overwrite"]) == 0
    text = capsys.readouterr().out
    assert "MATH" in text
    assert "0:" in text
    assert [part.name for part in (other / "attribution").iterdir()] == ["part-00000.parquet"]
    assert main(["ablate", str(other), "--target", "rank:relp:3"]) == 2
    assert "its attribution has no relp (it has attribution)" in capsys.readouterr().err


def test_identify_leaves_it_and_another_run_does_not_read_it(run: str, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    write_report(str(other))
    assert "agreement" in Run(other).tables
    assert main(["identify", str(other), "--rule", "fixed:0.02"]) == 0
    assert "agreement" not in Run(other).tables
    assert Attribution(Run(other)).rules == ("attribution", "relp")
    part = other / "attribution" / "part-00001.parquet"
    part.write_bytes((other / "attribution" / "part-00002.parquet").read_bytes())
    with pytest.raises(InputError, match="part-00001.parquet: holds the parts 2; write it again"):
        Attribution(Run(other))
    stranger = some_run(tmp_path / "mine").store.location
    shutil.copytree(Path(run) / "attribution", Path(stranger) / "attribution")
    with pytest.raises(InputError, match="written by another run; write it again: sparcom attrib"):
        Attribution(Run(stranger))


def some_run(folder: Path) -> Run:
    """A run of other instructions, without references."""
    space = dense_space()
    return write_run(folder, np.ones((6, space.neurons), bool), ["QA", "SUM"] * 3, space)


def test_the_page_says_how_the_rankings_agree(run: str) -> None:
    page = Path(write_report(run)).read_text()
    assert "What fires and what matters" in page
    rows = Run(run).table("agreement").to_pylist()
    assert {row["figure"] for row in rows} == {
        "rank correlation", "rank correlation, equal firing", "overlap", "reliability, firing",
        "reliability, attribution",
    }  # fmt: skip
    shared = [r for r in rows if (r["category"], r["figure"], r["k"]) == ("MATH", "overlap", 3)]
    assert [(r["rule"], r["value"]) for r in shared] == [("attribution", 1.0), ("relp", 1.0)]
    assert all(r["chance"] < 0.5 for r in shared)
    table = Run(run).table("attribution_neurons").to_pandas()
    best = table.sort_values("relp_MATH")["unit"].tolist()[-3:]
    assert sorted(best) == PLANTED
    assert (Path(run) / "figures" / "neurons-agreement.svg").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["attribute", "--limit", "-1"], "limit: must be at least 1, got -1"),
        (["attribute", "--answer-tokens", "-2"], "answer-tokens: must be at least 1, got -2"),
        (
            ["ablate", "--target", "rank:saliency:3"],
            "prevalence, attribution, relp, got 'saliency'",
        ),
        (["ablate", "--target", "rank:relp"], "target 'rank:relp' is not known"),
        (["ablate", "--target", "rank:relp:0"], "expected a number of at least 1, got '0'"),
        (["ablate", "--target", "rank:relp:3:CODE"], "expected a category of the run"),
    ],
)
def test_what_is_refused(run: str, capsys, arguments: list[str], message: str) -> None:
    capsys.readouterr()
    assert main([arguments[0], run, *arguments[1:]]) == 2
    assert message in capsys.readouterr().err


def test_a_run_without_answers_or_without_an_attribution(tmp_path: Path) -> None:
    other = some_run(tmp_path / "run")
    with pytest.raises(InputError, match="no instruction has a reference answer, whose"):
        attribute(other)
    with pytest.raises(InputError, match="nothing is attributed in this run; write it"):
        Attribution(other)


@pytest.mark.slow  # counts another model
def test_experts_are_the_sums_of_their_neurons(tmp_path: Path, capsys) -> None:
    out = counted(tmp_path, "qwen2_moe", corpus_rows()[:60])
    options = AttributionOptions(rules=("attribution",), limit=6, threads=1)
    found = attribute(Run(out), options).means("attribution")["MATH"]
    space = Run(out).space
    write_report(out)
    table = Run(out).table("attribution_experts")
    site = next(at for at, one in enumerate(space.sites) if one.experts)
    part = found[space.neuron_slices()[site]].reshape(space.sites[site].experts, -1)
    first = table["attribution_MATH"].to_numpy()[: len(part)]
    np.testing.assert_allclose(first, part.sum(1), rtol=1e-6, atol=1e-9)
    capsys.readouterr()
    given = ["--target", "rank:attribution:2", "--family", "experts", "--random-sets", "2"]
    assert main(["ablate", out, *given, "--limit", "4", "--cpus", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["family"] for row in rows} == {"experts"}
