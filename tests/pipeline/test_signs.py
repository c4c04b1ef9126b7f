"""A run with --signs: what it stores and reads back is what hooks see on the unmodified model."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pytest
import torch
from store_helpers import stored_table
from tiny_runs import records, save_tiny_llm, write_corpus
from transformers import AutoModelForCausalLM

from sparcom.components import ComponentSpace, Site
from sparcom.config import RunConfig
from sparcom.counting.signs import COMBINATIONS, combinations
from sparcom.errors import InputError
from sparcom.exporting import export
from sparcom.pipeline.actor import CountActor
from sparcom.pipeline.identify import identify
from sparcom.pipeline.plan import prepare
from sparcom.planning.sizes import stored_bytes
from sparcom.store import Run, Span


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    save_tiny_llm(folder / "model")
    write_corpus(folder / "corpus.jsonl", records(12))
    return folder


def count(work: Path, out: Path, **changes: object) -> Run:
    """A run without Ray."""
    config = RunConfig(
        model=str(work / "model"), corpus=str(work / "corpus.jsonl"), out=str(out), cpus=1,
        dtype="float32", part_size=5, batch_tokens=64, slots=4, **changes,
    )  # fmt: skip
    plan = prepare(config)
    actor = CountActor(plan.work)
    for part in plan.todo:
        actor.run(part)
    plan.store.profiles.merge(Span(0, plan.parts))
    plan.store.write_manifest({**plan.store.manifest(), "status": "complete"})
    return Run(out)


@pytest.fixture(scope="module")
def run(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return count(work, tmp_path_factory.mktemp("signs") / "run", signs=True, verify=True)


def plain_combinations(work: Path, run: Run) -> np.ndarray:
    """[4, instructions, neurons] counts of `COMBINATIONS`, each instruction read alone."""
    model = AutoModelForCausalLM.from_pretrained(
        work / "model", dtype=torch.float32, attn_implementation="eager"
    ).eval()
    seen: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if name.endswith(("gate_proj", "up_proj")):
            module.register_forward_hook(lambda m, i, out, n=name: seen.update({n: out[0] > 0}))
    rows = []
    corpus = run.store.corpus.table(["id", "token_ids", "counted"]).to_pylist()
    for one in sorted(corpus, key=lambda r: run.sets.ids.index(r["id"])):
        with torch.inference_mode():
            model(input_ids=torch.tensor([one["token_ids"]]))
        spans = zip(one["counted"][::2], one["counted"][1::2], strict=True)
        at = [t for start, stop in spans for t in range(start, stop)]
        four = []
        for name in (n for n in seen if n.endswith("gate_proj")):
            gate, up = seen[name][at], seen[name.replace("gate_proj", "up_proj")][at]
            four.append(
                torch.stack(
                    [
                        (g & u).sum(0)
                        for g, u in ((gate, up), (gate, ~up), (~gate, up), (~gate, ~up))
                    ]
                )
            )
        rows.append(torch.cat(four, 1))
    return torch.stack(rows, 1).numpy()


def test_every_combination_is_that_of_plain_hooks(work: Path, run: Run) -> None:
    plain = plain_combinations(work, run)
    shares = np.stack([run.sign_frequencies(name) for name in run.sets.ids], 1)
    found = shares * run.sets.tokens[:, None]
    np.testing.assert_allclose(shares.sum(0), 1, rtol=1e-6)
    assert (np.abs(found - plain) > 0.01).mean() < 1e-3  # fp32 sums of another order
    np.testing.assert_allclose(
        shares[0] + shares[1], np.stack([run.frequencies(n) for n in run.sets.ids]), atol=1e-6
    )
    profile = run.profile("category")
    labels = np.array(run.labels["category"].to_pylist())
    for row, name in enumerate(profile.keys["category"].to_pylist()):
        of = labels == name
        expected = found[:, of].sum(1) / run.sets.tokens[of].sum()
        np.testing.assert_allclose(profile.signs[:, row], expected, atol=1e-5)


def test_the_table_has_a_row_for_each_neuron_and_group(run: Run) -> None:
    table = run.sign_table(by=("category", "source"))
    profile = run.profile(("category", "source"))
    head = ["category", "source", "tokens", "layer", "kind", "expert", "unit"]
    assert table.column_names == [*head, *COMBINATIONS]
    assert len(table) == profile.keys.num_rows * run.space.neurons
    at = run.space.neurons + 70  # of the second group
    row = table.slice(at, 1).to_pylist()[0]
    layer, kind, _, unit = run.space.describe_neuron(70)
    assert (row["layer"], row["kind"], row["expert"], row["unit"]) == (layer, kind, None, unit)
    assert row["category"] == profile.keys["category"][1].as_py()
    assert [row[c] for c in COMBINATIONS] == profile.signs[:, 1, 70].tolist()


def test_the_table_is_exported(run: Run, tmp_path: Path) -> None:
    (file,) = export(run, "signs", tmp_path / "signs.csv", category="MATH")
    table = run.sign_table()
    expected = table.filter(pc.equal(table["category"], "MATH"))
    found = pcsv.read_csv(file)
    assert found.column_names == expected.column_names
    assert found["unit"].to_pylist() == expected["unit"].to_pylist()
    np.testing.assert_allclose(found["both"], expected["both"], rtol=1e-6)
    with pytest.raises(InputError, match=r"export .*signs\.txt: expected a \.csv or \.parquet"):
        export(run, "signs", tmp_path / "signs.txt")


def test_other_counts_and_sets_are_those_without_signs(work: Path, run: Run, tmp_path) -> None:
    plain = count(work, tmp_path / "plain")
    for name in ("counts/part-00001.parquet", "profiles/parts-00000-00002.parquet"):
        signed, without = stored_table(run.store, name), stored_table(plain.store, name)
        assert set(signed.column_names) > set(without.column_names)
        assert signed.select(without.column_names).equals(without)
    assert plain.profile().signs is None
    for ask in (lambda: plain.sign_frequencies(plain.sets.ids[0]), plain.sign_table):
        with pytest.raises(InputError, match="this run has no signs; count with --signs"):
            ask()


def test_sets_selected_again_keep_the_signs(work: Path, tmp_path: Path) -> None:
    run = count(work, tmp_path / "run", signs=True)
    before = run.profile("source")
    identify(str(tmp_path / "run"), rule="top:0.2")
    after = Run(tmp_path / "run").profile("source")
    assert not np.array_equal(before.prevalence, after.prevalence)
    np.testing.assert_array_equal(before.signs, after.signs)


def test_routed_combinations_add_up_to_the_routed_rows() -> None:
    space = ComponentSpace(
        (Site("routed", 0, 2, "silu", experts=2, top_k=1), Site("shared", 0, 1, "silu"))
    )
    gate, experts = np.array([[2, 0, 1, 1, 4]]), np.array([[3, 2]])
    signs = np.array([[[1, 3, 1, 0, 2]], [[1, 0, 1, 0, 1]]])
    four = combinations(space, np.array([5]), gate, experts, signs)
    assert four[:, 0].tolist() == [
        [1, 0, 1, 0, 1], [1, 0, 0, 1, 3], [0, 3, 0, 0, 1], [1, 0, 1, 1, 0],
    ]  # fmt: skip
    assert four.sum(0).tolist() == [[3, 3, 2, 2, 5]]


def test_signs_take_two_more_counts_on_disk() -> None:
    space = ComponentSpace((Site("dense", 0, 800, "silu"),))
    plain, signed = (stored_bytes(space, "counts", s) for s in (False, True))
    assert signed - plain == 1600
    assert stored_bytes(space, "sets", True) == stored_bytes(space, "sets")


def test_a_model_without_up_is_refused_before_the_run(tmp_path: Path) -> None:
    save_tiny_llm(tmp_path / "model", "gpt2")
    write_corpus(tmp_path / "corpus.jsonl", records(3))
    with pytest.raises(InputError, match=r"--signs: layer0\.dense has no up projection"):
        count(tmp_path, tmp_path / "run", signs=True)
    assert not (tmp_path / "run").exists()
