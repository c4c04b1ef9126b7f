"""Counting in memory: counts equal plain hooks on the unmodified model, whatever form comes in."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from tiny_runs import save_tiny_llm
from transformers import AutoModelForCausalLM, AutoTokenizer

import sparcom
from sparcom import InputError, Instruction, Model, SparcomError, select

TEXTS = ["What is 17 * 23?", "Say it again, but louder.", "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return str(save_tiny_llm(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def model(folder: str):
    with Model(folder, dtype="float32", cpus=1) as loaded:
        yield loaded


def plain_counts(folder: str, texts: list[str]) -> np.ndarray:
    """[n, neurons] gate > 0 over all tokens of each text alone, by hooks on transformers' model."""
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    gates: list[torch.Tensor] = []
    for name, module in plain.named_modules():
        if name.endswith("gate_proj"):
            module.register_forward_hook(lambda m, i, out: gates.append(out[0]))
    rows = []
    for text in texts:
        gates.clear()
        with torch.inference_mode():
            plain(**tokenizer(text, return_tensors="pt"))
        rows.append(torch.cat([(gate > 0).sum(0) for gate in gates]).numpy())
    return np.stack(rows)


def test_counts_equal_plain_hooks(folder: str, model: Model) -> None:
    counts = model.count(TEXTS, template="raw", scope="prompt")
    assert counts.ids == ("0", "1", "2")
    np.testing.assert_array_equal(counts.neurons, plain_counts(folder, TEXTS))
    expected = counts.neurons / counts.tokens[:, None]
    np.testing.assert_allclose(counts.frequencies(), expected, rtol=1e-6)
    frame = counts.to_pandas()
    assert frame.shape == counts.neurons.shape
    layer, kind, expert, unit = frame.columns[-1]
    assert model.space.neuron_index(layer, kind, expert, unit) == model.space.neurons - 1


def test_signs_in_memory(folder: str, model: Model) -> None:
    """Against plain hooks, by the signs of gate and up of each token."""
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, seen = AutoTokenizer.from_pretrained(folder), []
    for name, module in plain.named_modules():
        if name.endswith(("gate_proj", "up_proj")):
            module.register_forward_hook(lambda m, i, out: seen.append(out[0] > 0))
    with torch.inference_mode():
        plain(**tokenizer(TEXTS[0], return_tensors="pt"))
    pairs = list(zip(seen[::2], seen[1::2], strict=True))  # gate, up of each layer
    both = torch.cat([(gate & up).double().mean(0) for gate, up in pairs])
    neither = torch.cat([(~gate & ~up).double().mean(0) for gate, up in pairs])
    with Model(folder, dtype="float32", cpus=1, signs=True) as signed:
        counts = signed.count(TEXTS[0], template="raw", scope="prompt")
    shares = counts.sign_frequencies()
    np.testing.assert_allclose(shares[0, 0], both, rtol=1e-6)
    np.testing.assert_allclose(shares[3, 0], neither, rtol=1e-6)
    np.testing.assert_allclose(shares[:2].sum(0), counts.frequencies(), rtol=1e-6)
    with pytest.raises(InputError, match="sign_frequencies: signs were not counted"):
        model.count(TEXTS[0]).sign_frequencies()


def test_every_form_of_input_counts_alike(model: Model) -> None:
    options = {"template": "plain"}
    expected = model.count(TEXTS, **options)
    forms = [
        [Instruction(str(at), "QA", instruction=text) for at, text in enumerate(TEXTS)],
        [[{"role": "user", "content": text}] for text in TEXTS],
        pd.DataFrame({"instruction": TEXTS, "other": [1, 2, 3]}),
        pa.table({"instruction": TEXTS}),
    ]
    for form in forms:
        counts = model.count(form, **options)
        assert counts.ids == expected.ids
        np.testing.assert_array_equal(counts.neurons, expected.neurons)
        np.testing.assert_array_equal(counts.tokens, expected.tokens)
    alone = model.count(TEXTS[0], **options)
    np.testing.assert_array_equal(alone.neurons, expected.neurons[:1])


def test_a_system_turn_is_the_system_prompt(model: Model) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXTS[0]}]
    mixed = model.count([chat, TEXTS[1]], template="plain", scope="prompt")
    with_system = model.count(TEXTS[0], template="plain", scope="prompt", system="Be brief.")
    without = model.count(TEXTS[1], template="plain", scope="prompt")
    np.testing.assert_array_equal(mixed.neurons[0], with_system.neurons[0])
    np.testing.assert_array_equal(mixed.neurons[1], without.neurons[0])
    assert mixed.tokens[0] > model.count(TEXTS[0], template="plain", scope="prompt").tokens[0]


def test_selected_sets_hold_the_highest_frequencies(model: Model) -> None:
    counts = model.count(TEXTS, template="raw")
    sets = select(counts, rule="top:0.1", ties="exact")
    size = int(np.ceil(0.1 * model.space.neurons))
    for row in range(len(TEXTS)):
        index = sets.indices(row)
        assert len(index) == min(size, int((counts.neurons[row] > 0).sum()))
        lowest = counts.neurons[row, index].min()
        rest = np.delete(counts.neurons[row], index)
        assert (rest <= lowest).all()
        np.testing.assert_array_equal(sets.indices(counts.ids[row]), index)
    table = sets.table()
    assert table.column_names == ["id", "layer", "kind", "expert", "unit"]
    first = table.slice(0, len(sets.indices(0))).to_pylist()
    found = [model.space.neuron_index(r["layer"], r["kind"], -1, r["unit"]) for r in first]
    assert found == sets.indices(0).tolist()
    assert sparcom.Sets is type(sets)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (3, "expected a string, a list of strings.*got int"),
        ([3], "item 0: expected a string.*got int"),
        ([""], "item 0: its instruction is blank"),
        (pd.DataFrame({"text": ["x"]}), "row 0: the column 'instruction' must hold text"),
        ([[{"role": "tool", "content": "x"}]], "item 0: expected a chat of one exchange.*tool"),
        ([[{"role": "user", "content": None}]], "item 0: the content of every message must be"),
        ([Instruction("a", "", instruction="x")] * 2, "the id 'a' comes twice"),
    ],
)
def test_bad_inputs_are_named(model: Model, inputs: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.count(inputs, template="raw")


def test_a_misspelt_option_and_a_closed_model_are_errors(folder: str) -> None:
    with pytest.raises(InputError, match="no option 'dtyp'; did you mean 'dtype'"):
        Model(folder, dtyp="float32")
    model = Model(folder, cpus=1)
    model.close()
    with pytest.raises(SparcomError, match="this model is closed"):
        model.count("x")
