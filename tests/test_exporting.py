"""What a run found, read back as the tools that it is for read it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from planted import dense_space, mixed_space, write_run
from transformers import LlamaConfig, LlamaForCausalLM

from sparcom import InputError, Run
from sparcom.cli.main import main
from sparcom.components import ComponentSpace
from sparcom.exporting import export

LABELS = ["CODE", "MATH", "QA"] * 20


def made(folder: Path, space: ComponentSpace) -> tuple[Run, np.ndarray, np.ndarray, np.ndarray]:
    """(run, members [n, neurons], experts [n, experts], T [n])."""
    rng = np.random.default_rng(3)
    q = rng.random((3, space.neurons)) ** 3
    codes = np.arange(len(LABELS)) % 3
    members = rng.random((len(LABELS), space.neurons)) < q[codes]
    experts = rng.random((len(LABELS), space.experts)) < 0.5
    tokens = np.arange(len(LABELS)) % 17 + 8
    run = write_run(folder, members, LABELS, space, experts=experts, tokens=tokens, retain="counts")
    return run, members, experts, tokens


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return made(tmp_path_factory.mktemp("dense"), dense_space(3, 40))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    return made(tmp_path_factory.mktemp("mixed"), mixed_space())


def sums(values: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """[3, components] summed counts by category; every member fires at every token."""
    codes = np.arange(len(LABELS)) % 3
    return np.stack([(values[codes == c] * tokens[codes == c, None]).sum(0) for c in range(3)])


def test_lape_counts_give_its_probabilities(dense, tmp_path: Path) -> None:
    run, members, _, tokens = dense
    files = export(run, "lape-counts", tmp_path / "counts")
    assert [file.name for file in files] == [
        f"activation.{name}.train" for name in ("CODE", "QA", "MATH")
    ]
    loaded = {file.name.split(".")[1]: torch.load(file, weights_only=True) for file in files}
    for at, name in enumerate(("CODE", "MATH", "QA")):
        assert loaded[name]["n"] == tokens[np.arange(len(LABELS)) % 3 == at].sum()
        assert loaded[name]["over_zero"].shape == (3, 40)
        expected = sums(members, tokens)[at].reshape(3, 40)
        np.testing.assert_array_equal(loaded[name]["over_zero"].numpy(), expected)


def test_lape_lists_the_neurons_of_each_category_and_layer(dense, tmp_path: Path) -> None:
    run, members, _, tokens = dense
    (file,) = export(run, "lape", tmp_path / "neurons.pth")
    lists = torch.load(file, weights_only=True)
    codes = np.arange(len(LABELS)) % 3
    order = [["CODE", "MATH", "QA"].index(name) for name in run.categories]
    p = torch.from_numpy(
        sums(members, tokens) / np.array([[tokens[codes == c].sum()] for c in range(3)])
    )[order]
    share = p / p.sum(0)
    entropy = -torch.where(share > 0, share * share.log(), 0.0).sum(0)
    bar = p.flatten().kthvalue(round(p.numel() * 0.95)).values
    entropy[~(p > bar).any(0)] = torch.inf
    chosen = entropy.topk(round(p.shape[1] * 0.01), largest=False).indices
    assert len(chosen) == 1
    for c, layers in enumerate(lists):
        found = [40 * layer + int(unit) for layer, units in enumerate(layers) for unit in units]
        assert all(units.dtype == torch.int64 for units in layers)
        assert found == [int(i) for i in chosen if p[c, i] > bar]


def test_steermoe_reads_the_risk_difference(mixed, tmp_path: Path) -> None:
    run, _, experts, tokens = mixed
    (file,) = export(run, "steermoe", tmp_path / "m.pkl", category="MATH")
    frame = pd.read_pickle(file)
    codes = np.arange(len(LABELS)) % 3
    own = codes == 1
    f = [(experts[rows] * tokens[rows, None]).sum(0) / tokens[rows].sum() for rows in (own, ~own)]
    np.testing.assert_allclose(frame["risk_diff"], f[0] - f[1])
    np.testing.assert_allclose(frame["risk_diff_abs"], np.abs(f[0] - f[1]))
    assert frame[["layer", "expert"]].to_numpy().tolist() == [
        [layer, expert] for layer in (1, 2) for expert in range(5)
    ]


@pytest.mark.parametrize("category", [None, "QA"])
def test_an_expert_list_ranks_each_layer(mixed, tmp_path: Path, category: str | None) -> None:
    run, _, experts, tokens = mixed
    (file,) = export(run, "expert-list", tmp_path / "e.jsonl", category=category)
    total = sums(experts, tokens)
    total = total.sum(0) if category is None else total[2]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [list(line) for line in lines] == [["1"], ["2"]]
    for at, line in enumerate(lines):
        (listed,) = line.values()
        assert sorted(listed) == list(range(5))
        ranked = total[5 * at : 5 * at + 5][listed]
        assert (np.diff(ranked) <= 0).all()


def test_a_forward_hook_reads_neurons_json(dense, tmp_path: Path) -> None:
    run = dense[0]
    table = pd.DataFrame(
        {"layer": [0, 2, 0], "kind": "dense", "expert": None, "unit": [3, 5, 1],
         "category": ["MATH", "MATH", "QA"]}
    ).astype({"expert": "Int32"})  # fmt: skip
    run.store.write_table("specific_neurons", pa.Table.from_pandas(table, preserve_index=False))
    out = tmp_path / "neurons.json"
    assert main(["export", run.store.location, "neurons-json", str(out)]) == 0
    assert json.loads(out.read_text())["QA"] == [
        {"layer": 0, "kind": "dense", "expert": None, "units": [1]}
    ]
    config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=40, num_hidden_layers=3,
                         num_attention_heads=2)  # fmt: skip
    model = LlamaForCausalLM(config).eval()

    # The five lines of docs/howto/use-neurons.md.
    def silence(units):
        return lambda module, given: (given[0].index_fill(-1, torch.tensor(units), 0),)

    for site in json.loads(out.read_text())["MATH"]:
        down = model.model.layers[site["layer"]].mlp.down_proj
        down.register_forward_pre_hook(silence(site["units"]))
    seen = {}
    for at, layer in enumerate(model.model.layers):
        layer.mlp.down_proj.register_forward_hook(
            lambda m, given, out, at=at: seen.__setitem__(at, (given[0], out))
        )
    with torch.no_grad():
        model(torch.tensor([[1, 2, 3]]))
    weights = {at: layer.mlp.down_proj.weight for at, layer in enumerate(model.model.layers)}
    for at, units in {0: [3], 1: [], 2: [5]}.items():
        h, written = seen[at]
        assert (h[..., units] == 0).all()
        assert (h != 0).sum() == h.numel() - len(units) * 3
        torch.testing.assert_close(written, h @ weights[at].T)


@pytest.mark.parametrize(
    ("what", "given", "line"),
    [
        ("onnx", {}, "export: format: expected neurons-json, lape"),
        ("lape", {}, "lape holds a dense FFN in every layer"),
        ("lape-counts", {}, "lape-counts holds a dense FFN in every layer"),
        ("steermoe", {}, "steermoe compares one category with the others"),
        ("expert-list", {"category": "SUM"}, "category: expected one of the run"),
        ("neurons-json", {"table": "none"}, "no table 'none'"),
    ],
)
def test_what_a_format_cannot_hold_is_one_line(mixed, tmp_path, what, given, line) -> None:
    with pytest.raises(InputError, match=line) as error:
        export(mixed[0], what, tmp_path / "x", **given)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("table", "way_out"),
    [("specific_neurons", "such as enriched_neurons"), ("enriched_neurons", "more instructions")],
)
def test_an_empty_list_is_not_written(dense, tmp_path: Path, table: str, way_out: str) -> None:
    run = dense[0]
    kinds = {"layer": pa.int32(), "kind": pa.string(), "expert": pa.int32(), "unit": pa.int32()}
    nothing = pa.schema({**kinds, "category": pa.string()}).empty_table()
    run.store.write_table(table, nothing)
    with pytest.raises(InputError, match=f"no neuron is in table '{table}'.*{way_out}"):
        export(run, "neurons-json", tmp_path / "x", table=table)
    assert not (tmp_path / "x").exists()


def test_a_dense_model_has_no_experts_to_list(dense, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no routed experts"):
        export(dense[0], "expert-list", tmp_path / "x")
