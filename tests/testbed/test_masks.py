"""Training a list of neurons: exactly their rows and columns change, by us and in plain PyTorch."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from doc_examples import ROOT, blocks
from safetensors.torch import load_file
from tiny_models import tiny_config
from tiny_runs import records, save_tiny_llm, write_corpus
from transformers import AutoModelForCausalLM

from sparcom.component_list import COMPONENT_SCHEMA, Components, write_components
from sparcom.engines.transformers.sites import find_ffns, space_of
from sparcom.errors import InputError
from sparcom.testbed.fine_tune import fine_tune
from sparcom.testbed.masks import weights_of_units

FILE = "model.safetensors"


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    rows = [row | {"reference": "the sea is blue"} for row in records(12)]
    return str(write_corpus(tmp_path / "c.jsonl", rows))


def listed(*rows: tuple[int, str, int | None, int | None]) -> pa.Table:
    names = COMPONENT_SCHEMA.names
    return pa.Table.from_pylist([dict(zip(names, r, strict=True)) for r in rows], COMPONENT_SCHEMA)


def changed_entries(base: Path, tuned: Path) -> dict[str, set[tuple[int, ...]]]:
    """Parameter -> places of the entries that differ, of those that have any."""
    one, other = load_file(base / FILE), load_file(tuned / FILE)
    assert set(one) == set(other)
    out = {}
    for name in one:
        places = (one[name] != other[name]).nonzero().tolist()
        if places:
            out[name] = {tuple(place) for place in places}
    return out


def rows_of(found: set[tuple[int, ...]], axis: int) -> set[int]:
    return {place[axis] for place in found}


def test_a_dense_list_trains_its_rows_and_columns(tmp_path: Path, corpus: str) -> None:
    model = save_tiny_llm(tmp_path / "base")
    units = tmp_path / "units.csv"
    write_components(units, listed((0, "dense", None, 3), (0, "dense", None, 50),
                                   (2, "dense", None, 7)))  # fmt: skip
    losses = fine_tune(str(model), corpus, tmp_path / "out", steps=8, rate=1e-1, units=str(units))
    assert len(losses) == 8
    found = changed_entries(model, tmp_path / "out")
    for layer, wanted in ((0, {3, 50}), (2, {7})):
        mlp = f"model.layers.{layer}.mlp"
        assert rows_of(found.pop(f"{mlp}.gate_proj.weight"), 0) == wanted
        assert rows_of(found.pop(f"{mlp}.up_proj.weight"), 0) == wanted
        assert rows_of(found.pop(f"{mlp}.down_proj.weight"), 1) == wanted
    assert found == {}  # all else is bit for bit what it was


def test_a_mixture_trains_rows_of_its_experts(tmp_path: Path, corpus: str) -> None:
    model = save_tiny_llm(tmp_path / "base", "qwen2_moe", num_experts_per_tok=6)
    table = listed((1, "routed", 4, 5), (1, "routed", 0, 23), (2, "shared", None, 39),
                   (2, "routed", 3, None))  # fmt: skip
    fine_tune(str(model), corpus, tmp_path / "out", steps=8, rate=1e-1, units=table)
    found = changed_entries(model, tmp_path / "out")
    layers = "model.layers"
    for expert, units in ((4, {5}), (0, {23})):
        name = f"{layers}.1.mlp.experts.{expert}"
        assert rows_of(found.pop(f"{name}.gate_proj.weight"), 0) == units
        assert rows_of(found.pop(f"{name}.up_proj.weight"), 0) == units
        assert rows_of(found.pop(f"{name}.down_proj.weight"), 1) == units
    shared = f"{layers}.2.mlp.shared_expert"
    assert rows_of(found.pop(f"{shared}.gate_proj.weight"), 0) == {39}
    assert rows_of(found.pop(f"{shared}.up_proj.weight"), 0) == {39}
    assert rows_of(found.pop(f"{shared}.down_proj.weight"), 1) == {39}
    whole = f"{layers}.2.mlp.experts.3"  # an expert stands for all its neurons
    assert rows_of(found.pop(f"{whole}.gate_proj.weight"), 0) == set(range(24))
    assert rows_of(found.pop(f"{whole}.up_proj.weight"), 0) == set(range(24))
    assert rows_of(found.pop(f"{whole}.down_proj.weight"), 1) == set(range(24))
    assert found == {}


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2", "opt", "qwen2_moe", "gpt_oss"])
def test_masked_entries_are_those_a_neuron_depends_on(family: str) -> None:
    """Without its column of the down projection a neuron adds nothing; then no masked entry of the
    first weights is of any consequence, whatever stands there."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(family)).float().eval()
    ffns = find_ffns(model)
    space = space_of(ffns)
    at = len(ffns) - 1
    start, unit = int(space.neuron_offsets[at]), 5
    chosen = Components(np.array([start + unit]), np.zeros(0, np.int64))
    masks = weights_of_units(model, chosen)
    names = {parameter: name for name, parameter in model.named_parameters()}
    ids = torch.arange(3, 40)[None]
    whole = model(ids).logits
    down = next(p for p in masks if "down" in names[p] or "c_proj" in names[p] or "fc2" in names[p])
    with torch.no_grad():
        down.masked_fill_(masks[down], 0)
    silenced = model(ids).logits
    with torch.no_grad():
        for parameter, mask in masks.items():
            parameter.masked_fill_(mask, 9.0 if parameter is not down else 0.0)
    assert torch.equal(model(ids).logits, silenced)  # nothing but this neuron has changed
    if not ffns[at].site.experts:
        assert not torch.equal(whole, silenced)
    hidden, gates = 32, 1 + ffns[at].site.gated
    biases = sum(mask.sum().item() for p, mask in masks.items() if "bias" in names[p])
    total = sum(mask.sum().item() for mask in masks.values())
    assert total == hidden * (gates + 1) + biases
    assert biases == {"gpt2": 1, "opt": 1, "gpt_oss": 2}.get(family, 0)


def test_a_unit_that_the_model_lacks(tmp_path: Path, corpus: str) -> None:
    model = save_tiny_llm(tmp_path / "base")
    with pytest.raises(InputError, match="row 0"):
        fine_tune(str(model), corpus, tmp_path / "out", units=listed((0, "dense", None, 5000)))
    with pytest.raises(InputError, match="units: there are none"):
        fine_tune(str(model), corpus, tmp_path / "out", units=listed())


def test_the_plain_loop_of_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of docs/howto/use-neurons.md, on a list as `sparcom export` writes it."""
    monkeypatch.chdir(tmp_path)
    Path("neurons.json").write_text(
        '{"MATH": [{"layer": 0, "kind": "dense", "expert": null, "units": [3, 50]},'
        ' {"layer": 2, "kind": "dense", "expert": null, "units": [7]}]}'
    )
    (code,) = (
        code for code in blocks(ROOT / "docs/howto/use-neurons.md", "python") if "AdamW" in code
    )
    model = AutoModelForCausalLM.from_pretrained(save_tiny_llm(tmp_path / "m"), dtype=torch.float32)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    ids = {"input_ids": torch.arange(3, 40)[None]}
    exec(compile(code, "use-neurons.md", "exec"), {"model": model, "ids": ids})
    for name, weight in model.named_parameters():
        differs = weight.detach() != before[name]
        units = {"layers.0.mlp": [3, 50], "layers.2.mlp": [7]}.get(".".join(name.split(".")[1:4]))
        if units is None:
            assert not differs.any(), name
        else:
            axis = 1 if "down_proj" in name else 0
            assert differs.any(1 - axis).nonzero().flatten().tolist() == units, name
