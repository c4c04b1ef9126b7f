"""Models that write, are scored, and are ablated or scaled: against transformers, unmodified."""

from contextlib import nullcontext

import numpy as np
import plain_changes
import pyarrow as pa
import pytest
import torch
from tiny_runs import save_tiny_llm
from transformers import AutoModelForCausalLM, AutoTokenizer

from sparcom import InputError, Model
from sparcom.component_list import component_table, write_components

TEXTS = ["What is 17 * 23?", "Say it again, but louder.", "x"]
CHATS = [
    [{"role": "user", "content": text}, {"role": "assistant", "content": "the sea is blue"}]
    for text in TEXTS
]
UNITS = np.arange(60, 100)  # of the second layer


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return str(save_tiny_llm(tmp_path_factory.mktemp("model"), tie_word_embeddings=False))


@pytest.fixture(scope="module")
def model(folder: str):
    with Model(folder, dtype="float32", cpus=1) as loaded:
        yield loaded


def plain_model(folder: str, factor: float = 1.0) -> torch.nn.Module:
    """transformers' model, the columns of `UNITS` in its down projection times a factor."""
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        plain.model.layers[1].mlp.down_proj.weight[:, UNITS - 56] *= factor
    return plain


def plain_answers(folder: str, factor: float = 1.0) -> list[str]:
    plain, tokenizer = plain_model(folder, factor), AutoTokenizer.from_pretrained(folder)
    out = []
    for text in TEXTS:
        given = tokenizer(text, return_tensors="pt")
        ids = plain.generate(
            **given, do_sample=False, max_new_tokens=12, pad_token_id=tokenizer.pad_token_id
        )
        written = ids[0, given["input_ids"].shape[1] :]
        out.append(tokenizer.decode(written, skip_special_tokens=True))
    return out


def plain_losses(folder: str, factor: float = 1.0) -> np.ndarray:
    plain, tokenizer = plain_model(folder, factor), AutoTokenizer.from_pretrained(folder)
    out = []
    for text in TEXTS:
        asked = tokenizer(text)["input_ids"]
        answer = tokenizer("the sea is blue", add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            scores = plain(torch.tensor([asked + answer])).logits[0].log_softmax(-1)
        rows = [float(scores[len(asked) + at - 1, token]) for at, token in enumerate(answer)]
        out.append(-np.mean(rows))
    return np.array(out)


@pytest.mark.parametrize("factor", [1.0, 0.0, 2.0])
def test_answers_and_losses_equal_transformers_on_scaled_weights(
    folder: str, model: Model, factor: float
) -> None:
    counted = model.count(TEXTS, template="raw").neurons
    with model.scaled(UNITS, factor) if factor != 1 else nullcontext():
        assert model.generate(TEXTS, max_tokens=12, template="raw") == plain_answers(folder, factor)
        losses = model.losses(CHATS, template="raw")
    np.testing.assert_allclose(losses, plain_losses(folder, factor), rtol=1e-4)
    np.testing.assert_array_equal(model.count(TEXTS, template="raw").neurons, counted)


def test_factors_change_what_is_written_and_one_changes_no_bit(folder: str, model: Model) -> None:
    assert len({tuple(plain_answers(folder, factor)) for factor in (0.0, 1.0, 2.0)}) == 3
    whole = model.losses(CHATS, template="raw")
    with model.scaled(np.arange(model.space.neurons), 1):
        np.testing.assert_array_equal(model.losses(CHATS, template="raw"), whole)
    with model.ablated(UNITS):
        assert (model.losses(CHATS, template="raw") != whole).all()
    np.testing.assert_array_equal(model.losses(CHATS, template="raw"), whole)


def test_units_come_in_every_form(model: Model, tmp_path) -> None:
    table = component_table(model.space, "neurons", UNITS)
    write_components(tmp_path / "list.csv", table)
    found = []
    words = [f"1:{unit - 56}" for unit in UNITS]
    for units in (
        UNITS,
        UNITS.tolist(),
        words,
        str(tmp_path / "list.csv"),
        table,
        table.to_pandas(),
    ):
        with model.ablated(units):
            found.append(model.losses(CHATS, template="raw"))
    for losses in found[1:]:
        np.testing.assert_array_equal(losses, found[0])


def test_the_mean_is_that_over_given_inputs(folder: str, model: Model) -> None:
    plain, tokenizer = plain_model(folder), AutoTokenizer.from_pretrained(folder)
    seen = []
    plain.model.layers[1].mlp.down_proj.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0][0])
    )
    with torch.inference_mode():
        for text in TEXTS[:2]:
            plain(**tokenizer(text, return_tensors="pt"))
    mean = torch.cat(seen).mean(0)[UNITS - 56]

    def fill(_, inputs):
        h = inputs[0].clone()
        h[..., UNITS - 56] = mean
        return (h,)

    plain.model.layers[1].mlp.down_proj.register_forward_pre_hook(fill)
    asked = tokenizer(TEXTS[0])["input_ids"]
    answer = tokenizer("the sea is blue", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        scores = plain(torch.tensor([asked + answer])).logits[0].log_softmax(-1)
    expected = -np.mean([float(scores[len(asked) + i - 1, t]) for i, t in enumerate(answer)])
    with model.ablated(UNITS, "mean", over=TEXTS[:2], template="raw"):
        (loss,) = model.losses(CHATS[:1], template="raw")
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


SIGNED = {"negative": torch.lt, "positive": torch.gt}


@pytest.mark.parametrize("how", SIGNED)
def test_silence_by_the_sign_of_the_gate(folder: str, model: Model, how: str) -> None:
    def silence(layer, kind, expert, tokens, gate, h):
        h = h.clone()
        if layer == 1:
            h[:, UNITS - 56] *= ~SIGNED[how](gate[:, UNITS - 56], 0)
        return h

    plain, tokenizer = plain_changes.plain_model(folder), AutoTokenizer.from_pretrained(folder)
    asked = [tokenizer(text)["input_ids"] for text in TEXTS]
    answer = tokenizer("the sea is blue", add_special_tokens=False)["input_ids"]
    with plain_changes.edited(plain, silence):
        expected = [
            plain_changes.loss_of(plain, ids + answer, len(ids), len(ids) + len(answer))
            for ids in asked
        ]
    whole = model.losses(CHATS, template="raw")
    with model.ablated(UNITS, how):
        found = model.losses(CHATS, template="raw")
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert (found != whole).all()


def test_outputs_of_another_input(folder: str, model: Model) -> None:
    """The donor's question and answer are aligned with those that are read, at its end and start:
    of the first question the last four tokens take those of the donor's last four."""
    plain, tokenizer = plain_changes.plain_model(folder), AutoTokenizer.from_pretrained(folder)
    question, reply = "why is it so?", "seven"
    donor = [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    before = tokenizer(question)["input_ids"]
    after = tokenizer(reply, add_special_tokens=False)["input_ids"]
    kept = []

    def keep(layer, kind, expert, tokens, gate, h):
        if layer == 1:
            kept.append(h.clone())
        return h

    with plain_changes.edited(plain, keep):
        plain_changes.logits_of(plain, before + after)
    (theirs,) = kept
    asked = tokenizer(TEXTS[0])["input_ids"]
    answer = tokenizer("the sea is blue", add_special_tokens=False)["input_ids"]

    def give(layer, kind, expert, tokens, gate, h):
        h = h.clone()
        if layer == 1:
            at = [(t - len(asked) + len(before)) % len(theirs) for t in tokens.tolist()]
            h[:, UNITS - 56] = theirs[at][:, UNITS - 56]
        return h

    with plain_changes.edited(plain, give):
        expected = plain_changes.loss_of(
            plain, asked + answer, len(asked), len(asked) + len(answer)
        )
    whole = model.losses(CHATS[:1], template="raw")
    with model.ablated(UNITS, "resample", over=[donor], template="raw"):
        (loss,) = model.losses(CHATS[:1], template="raw")
        written = model.generate(TEXTS, max_tokens=6, template="raw")
        counted = model.count(TEXTS, template="raw")
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    assert abs(loss - whole) > 1e-3
    assert written != model.generate(TEXTS, max_tokens=6, template="raw")
    assert (counted.neurons != model.count(TEXTS, template="raw").neurons).any()
    np.testing.assert_array_equal(model.losses(CHATS[:1], template="raw"), whole)

    def drawn(seed: int) -> np.ndarray:
        over = ["one", "sum of all", "blue sea", "add the words"]
        with model.ablated(UNITS, "resample", over=over, template="raw", seed=seed):
            return model.losses(CHATS, template="raw")

    np.testing.assert_array_equal(drawn(0), drawn(0))
    assert any((drawn(seed) != drawn(0)).any() for seed in range(1, 4))


@pytest.mark.parametrize("how", ["zero", "scale:0.5", "negative", "resample"])
def test_a_trace_shows_what_the_ablated_pass_has(folder: str, model: Model, how: str) -> None:
    """Gate and up as the changed layers before make them, h as it is changed, fired as counted."""
    over = {"over": ["why is it so?"]} if how == "resample" else {}
    plain, tokenizer = plain_changes.plain_model(folder), AutoTokenizer.from_pretrained(folder)
    donor: dict[int, torch.Tensor] = {}
    seen: dict[int, tuple] = {}
    traced = np.concatenate([UNITS, UNITS + 56])  # of the changed layer and of the next
    changed = UNITS - 56

    def keep(layer, kind, expert, tokens, gate, h):
        donor[layer] = h.clone()
        return h

    def change(layer, kind, expert, tokens, gate, h):
        h = h.clone()
        if layer == 1:
            if how == "resample":
                n = len(donor[1])
                at = [(t - len(h) + n) % n for t in tokens.tolist()]
                h[:, changed] = donor[1][at][:, changed]
            elif how == "negative":
                h[:, changed] *= gate[:, changed] >= 0
            else:
                h[:, changed] *= {"zero": 0.0, "scale:0.5": 0.5}[how]
        seen[layer] = gate.clone(), h
        return h

    with plain_changes.edited(plain, keep):
        plain_changes.logits_of(plain, tokenizer("why is it so?")["input_ids"])
    names = [f"{neuron // 56}:{neuron % 56}" for neuron in traced]
    with model.ablated(UNITS, how, template="raw", **over):
        traces = model.trace(TEXTS[:2], names, template="raw", scope="prompt")
        counts = model.count(TEXTS[:2], template="raw", scope="prompt").neurons
    whole = model.trace(TEXTS[:2], names, template="raw", scope="prompt")
    for at, text in enumerate(TEXTS[:2]):
        with plain_changes.edited(plain, change):
            plain_changes.logits_of(plain, tokenizer(text)["input_ids"])
        gate, h = (
            torch.cat([seen[layer][part][:, changed] for layer in (1, 2)], 1) for part in (0, 1)
        )
        values = traces.values[at]
        np.testing.assert_allclose(values[..., 0], gate, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(values[..., 2], h, rtol=1e-4, atol=1e-5)
        sure = (gate.abs() > 1e-4).numpy()
        np.testing.assert_array_equal(traces.fired[at][sure], (gate > 0).numpy()[sure])
        np.testing.assert_array_equal(traces.fired[at].sum(0), counts[at][traced])
        n = len(UNITS)
        assert (values[:, :n, 2] != whole.values[at][:, :n, 2]).any()
        assert (values[:, n:, 0] != whole.values[at][:, n:, 0]).any()  # the next layer's gate


def test_by_signal_product_a_neuron_fires_before_its_own_ablation(folder: str) -> None:
    names = [f"1:{unit}" for unit in range(56)]
    with Model(folder, dtype="float32", cpus=1, signal="product", prove=False) as model:
        whole = model.trace(TEXTS[:1], names, template="raw")
        for how in ("zero", "scale:-1", "positive"):
            with model.ablated(np.arange(56, 112), how):
                found = model.trace(TEXTS[:1], names, template="raw")
            np.testing.assert_array_equal(found.fired[0], whole.fired[0])
            assert (found.values[0][..., 2] != whole.values[0][..., 2]).any()
        assert whole.fired[0].any()


def test_what_is_refused(folder: str, model: Model) -> None:
    for call, message in (
        (lambda: model.ablated([]), "units: there are none"),
        (lambda: model.ablated([model.space.neurons]), "flat neuron indices must be in"),
        (lambda: model.ablated([0.5]), "expected flat neuron indices"),
        (lambda: model.ablated(3), "got int"),
        (lambda: model.ablated(pa.table({"layer": [0]})), "column 'kind' is missing"),
        (lambda: model.ablated([0], "off"), "how: expected zero"),
        (lambda: model.ablated([0], "mean"), "over which inputs"),
        (lambda: model.ablated([0], "resample"), "from which inputs"),
        (lambda: model.ablated([0], "resample", over=[]), "over holds no input"),
        (lambda: model.ablated([0], "route"), "only whole experts have a router"),
        (lambda: model.scaled([0], float("nan")), "expected numbers"),
    ):
        with pytest.raises(InputError, match=message), call():
            pass
    with (
        model.ablated([0]),
        pytest.raises(InputError, match="end that block first"),
        model.scaled([1], 2),
    ):
        pass
    with pytest.raises(InputError, match="needs a reference"):
        model.losses(TEXTS)
    with pytest.raises(InputError, match="an answer of 900 do not fit the model's 128"):
        model.generate(TEXTS, max_tokens=900)
    with pytest.raises(InputError, match="must be at least 1, got 0"):
        model.generate(TEXTS, max_tokens=0)


def test_an_expert_is_all_its_neurons(tmp_path) -> None:
    folder = str(save_tiny_llm(tmp_path / "moe", "qwen2_moe"))
    with Model(folder, dtype="float32", cpus=1) as model:
        experts = component_table(model.space, "experts", np.array([0, 3]))
        neurons = np.flatnonzero(np.isin(model.space.neuron_experts, [0, 3]))
        whole = model.losses(CHATS, template="raw")
        with model.scaled(experts, 0.5):
            ours = model.losses(CHATS, template="raw")
            written = model.generate(TEXTS, template="raw", max_tokens=6)
        with model.scaled(neurons, 0.5):
            np.testing.assert_array_equal(model.losses(CHATS, template="raw"), ours)
            assert model.generate(TEXTS, template="raw", max_tokens=6) == written
        with model.ablated(experts, "route"):
            assert not model.count(TEXTS, template="raw").experts[:, [0, 3]].any()
        assert (ours != whole).any()


def test_attribution_is_what_a_small_change_of_each_unit_does(model: Model, folder: str) -> None:
    """The likelihood changes by attribution times the share by which a unit's output changes."""
    found = model.attribution(CHATS, template="raw")
    assert found.shape == (3, model.space.neurons)
    less, more = (plain_losses(folder, factor) for factor in (0.98, 1.02))
    np.testing.assert_allclose(found[:, UNITS].sum(1), (less - more) / 0.04, rtol=0.02, atol=1e-4)
    with model.scaled(UNITS, 1.02):
        np.testing.assert_allclose(model.losses(CHATS, template="raw"), more, rtol=1e-4)
        with pytest.raises(InputError, match="ablated or scaled; end that block first"):
            model.attribution(CHATS)
    with pytest.raises(InputError, match="expected attribution, relp, got 'lime'"):
        model.attribution(CHATS, rule="lime")
    assert np.abs(model.attribution(CHATS[:1], rule="relp", template="raw") - found[0]).max() > 0
