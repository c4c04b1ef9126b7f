"""Mixtures of experts: counts equal a plain loop over the experts."""

import numpy as np
import pytest
import torch
from store_helpers import store_part
from tiny_models import MOE, save_tiny_model, tiny_config
from torch import nn
from transformers import AutoModelForCausalLM
from transformers_tools import (
    DTYPES,
    count_all,
    first_activations,
    load,
    make_prompts,
)

from engines_moe import firing
from sparcom.components import ComponentSpace, Site
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.counted import Counted
from sparcom.counting.recorder import Recorder
from sparcom.engines.packing import Pass, plan_passes
from sparcom.engines.transformers import moe, sites
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.engines.transformers.loading import describe_model
from sparcom.selection.rules import Selection, identify
from sparcom.store import RunStore

FAMILIES = [family for family in MOE if family != "gpt_oss"]


class PlainLoop:
    """Counts by hooks: what every FFN and every expert takes in, times its weights in float64.

    What is hooked is the experts' input and the ids of the same call, so the gates are those that
    the engine computes. The engine's sums are in float32: a gate nearer to zero than such a sum can
    be wrong by (`engines_moe.firing`) may count or not, every other one must count as here.
    """

    def __init__(self, engine: TransformersEngine) -> None:
        self.space, self.engine = engine.space, engine
        self.seen: dict[int, tuple[list[tuple[torch.Tensor, ...]], torch.Tensor | None]] = {}
        self.hooks = []
        for at, ffn in enumerate(sites.find_ffns(engine.model)):
            self.hooks.append(self._hook(at, ffn.module, ffn.site.kind == "routed"))

    def _hook(self, at: int, module: nn.Module, routed: bool):
        def keep(_, arguments) -> None:
            hidden = arguments[0].reshape(-1, arguments[0].shape[-1])
            weights = (
                module.gate_up_proj.chunk(2, dim=1)[0] if routed else [module.gate_proj.weight]
            )
            self.seen[at] = [firing(hidden, w) for w in weights], arguments[1] if routed else None

        return module.register_forward_pre_hook(keep)

    def check(self, counted: Counted, prompts: list[Prompt], batch_tokens: int = 64) -> None:
        """Fail where the counts of the prompts are not those of the loop."""
        least, most = (np.zeros(counted.neurons.shape, np.int64) for _ in range(2))
        routed = np.zeros(counted.experts.shape, np.int64)
        for one in plan_passes([len(p.token_ids) for p in prompts], batch_tokens, 8):
            held = [prompts[i] for i in one.prompts]
            self.engine.forward(held, one)
            start = 0
            for at, prompt in zip(one.prompts, held, strict=True):
                for first, last in prompt.counted:
                    rows = slice(start + first, start + last)
                    self._add(rows, least[at], most[at], routed[at])
                start += len(prompt.token_ids)
        for hook in self.hooks:
            hook.remove()
        self.engine.recorder.discard()
        assert ((least <= counted.neurons) & (counted.neurons <= most)).all()
        assert (most - least).sum() <= 1e-3 * most.sum()  # nearly every gate is told
        np.testing.assert_array_equal(counted.experts, routed)
        assert counted.tokens.tolist() == [p.n_counted for p in prompts]

    def _add(self, rows: slice, least: np.ndarray, most: np.ndarray, routed: np.ndarray) -> None:
        places = zip(self.space.neuron_slices(), self.space.expert_offsets, strict=False)
        for at, (site, (columns, base)) in enumerate(zip(self.space.sites, places, strict=True)):
            fired, ids = self.seen[at]
            for expert, bounds in enumerate(fired):
                mine = slice(None) if ids is None else (ids[rows] == expert).any(1)
                first = columns.start + expert * site.width
                for total, gates in zip((least, most), bounds, strict=True):
                    total[first : first + site.width] += gates[rows][mine].sum(0).numpy()
                if ids is not None:
                    routed[base + expert] += int(mine.sum())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_counts_equal_a_plain_loop_over_the_experts(tmp_path, family: str, dtype: str) -> None:
    engine = load(save_tiny_model(tmp_path, family, DTYPES[dtype]), dtype, verify=True)
    prompts = make_prompts()
    counted = count_all(engine, prompts)
    assert 0.2 < (counted.neurons > 0).mean() < 1.0
    assert (counted.experts == 0).any()  # short prompts do not reach every expert
    PlainLoop(engine).check(counted, prompts)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rows_of_every_site_are_conserved(tmp_path, family: str) -> None:
    engine = load(save_tiny_model(tmp_path, family, torch.float32), "float32")
    counted = count_all(engine, make_prompts())
    for site, base in zip(engine.space.sites, engine.space.expert_offsets, strict=False):
        if site.experts:
            r = counted.experts[:, base : base + site.experts]
            np.testing.assert_array_equal(r.sum(1), site.top_k * counted.tokens)
            assert (r <= counted.tokens[:, None]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_computes_what_it_computes_without_counting(tmp_path, family, dtype) -> None:
    """But for tokens whose choice of experts is a near tie: one unit of bf16 decides it."""
    folder = save_tiny_model(tmp_path, family, DTYPES[dtype])
    prompts, one = make_prompts((20, 33, 7)), Pass((0, 1, 2), 64)
    ours, plain = (
        load(folder, dtype, count=count).forward(prompts, one, logits=True)[:60]
        for count in (True, False)
    )
    tolerance = 1e-5 if dtype == "float32" else 0.1
    far = ~torch.isclose(ours, plain, rtol=tolerance, atol=tolerance)
    assert far.float().mean() <= (0.0 if dtype == "float32" else 0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_packed_pass_is_the_model_run_on_each_prompt_alone(tmp_path, family: str) -> None:
    folder = save_tiny_model(tmp_path, family, torch.float32)
    prompts = make_prompts((20, 33, 7, 1))
    packed = load(folder, "float32").forward(prompts, Pass((0, 1, 2, 3), 64), logits=True)
    plain = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    start = 0
    for prompt in prompts:
        with torch.inference_mode():
            alone = plain(input_ids=torch.tensor([prompt.token_ids])).logits[0]
        ours = packed[start : start + len(prompt.token_ids)]
        torch.testing.assert_close(ours, alone, rtol=1e-4, atol=1e-4)
        start += len(prompt.token_ids)


@pytest.mark.parametrize("dtype", DTYPES)
def test_counts_do_not_depend_on_neighbours_or_order(tmp_path, dtype: str) -> None:
    """At sizes where a product of as many rows as an expert has would round by their number."""
    wide = {"hidden_size": 512, "moe_intermediate_size": 352, "num_hidden_layers": 2}
    folder = save_tiny_model(tmp_path, "qwen3_moe", DTYPES[dtype], num_attention_heads=8, **wide)
    engine = load(folder, dtype, batch_tokens=128)
    prompts = make_prompts((1, 2, 7, 20, 33, 12, 60, 41))
    together = count_all(engine, prompts)
    backwards = count_all(engine, prompts[::-1])
    np.testing.assert_array_equal(together.neurons, backwards.neurons[::-1])
    for at, prompt in enumerate(prompts):
        alone = count_all(engine, [prompt])
        np.testing.assert_array_equal(alone.neurons[0], together.neurons[at])
        np.testing.assert_array_equal(alone.experts[0], together.experts[at])


def rounding_depends_on_rows(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether this machine rounds a row otherwise when it is one of a few than one of many."""
    whole = x @ weight
    return any(not torch.equal(x[:n] @ weight, whole[:n]) for n in range(1, 6))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_of_a_row_is_its_own(tmp_path, dtype: str) -> None:
    """Experts put out the same bits for a row whatever the loads; rows as they come do not."""
    wide = {"hidden_size": 512, "moe_intermediate_size": 352, "num_hidden_layers": 1}
    folder = save_tiny_model(tmp_path, "qwen3_moe", DTYPES[dtype], num_attention_heads=8, **wide)
    engine = load(folder, dtype, batch_tokens=128)
    module = engine.model.model.layers[0].mlp.experts
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(128, 512, generator=generator).to(DTYPES[dtype])
    weights = torch.rand(128, 2, generator=generator).to(DTYPES[dtype])
    ids = torch.rand(128, 6, generator=generator).topk(2).indices
    elsewhere = ids.clone()
    elsewhere[9:] = torch.tensor([0, 1])  # about three rows are left for each other expert
    engine.recorder.begin(torch.full((128,), -1))

    @torch.inference_mode()
    def equal() -> bool:
        return torch.equal(*(module(hidden, i, weights)[:9] for i in (ids, elsewhere)))

    assert equal()
    runner = module._sparcom_runner
    if dtype == "float32" and rounding_depends_on_rows(hidden, runner.gate_up[2]):
        runner.run = runner._grouped
        assert not equal()


def test_the_layout_for_other_devices_counts_the_same(tmp_path) -> None:
    """Rows in expert order without tiles, as on a GPU; here on the CPU."""
    engine = load(save_tiny_model(tmp_path, "qwen2_moe", torch.bfloat16), "bfloat16", verify=True)
    for module in engine.model.modules():
        if moe.is_experts(module):
            runner = module._sparcom_runner
            runner.run = runner._grouped
    prompts = make_prompts()
    PlainLoop(engine).check(count_all(engine, prompts), prompts)


def test_experts_that_no_token_reaches_count_nothing(tmp_path) -> None:
    engine = load(save_tiny_model(tmp_path, "deepseek_v3", torch.float32), "float32", verify=True)
    for name, buffer in engine.model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer[:2] = 50.0  # every token to experts 0 and 1
    prompts = make_prompts()
    counted = count_all(engine, prompts)
    PlainLoop(engine).check(counted, prompts)
    r = counted.experts.reshape(len(prompts), 2, 6)
    assert (r[:, :, 2:] == 0).all()
    np.testing.assert_array_equal(r[:, 0, 0], counted.tokens)


def test_sets_of_experts_go_from_the_engine_to_the_store(tmp_path) -> None:
    engine = load(save_tiny_model(tmp_path / "m", "qwen2_moe", torch.float32), "float32")
    counted = count_all(engine, make_prompts())
    sets = identify(counted, engine.space, Selection(rule="top:0.1", expert_rule="top:0.25"))
    assert sets.cuts.shape[1] == 3  # dense, routed and shared are ranked apart
    assert sets.expert_sizes.min() >= 3
    store = RunStore(tmp_path / "run")
    store_part(store, 0, counted, sets, [])
    (_, stored), read = next(store.results.counts()), store.results.all_sets(engine.space)
    np.testing.assert_array_equal(stored.experts, counted.experts)
    np.testing.assert_array_equal(stored.neurons, counted.neurons)
    np.testing.assert_array_equal(read.experts, sets.experts)
    np.testing.assert_array_equal(read.neurons, sets.neurons)


# -- parts ----------------------------------------------------------------------------------------


def test_routed_rows_of_padding_and_of_no_token_are_not_counted() -> None:
    recorder = Recorder([Site("routed", 0, 3, "silu", experts=2, top_k=1)], 2)
    recorder.begin(torch.tensor([1, -1, 0]))
    gate = torch.ones(4, 3)
    token, expert = torch.tensor([0, 1, 2, -1]), torch.tensor([1, 1, 0, 0], dtype=torch.int32)
    recorder.count_routed(0, gate, gate, token, expert)
    counted = recorder.take(["a", "b"], [0, 1], [1, 1])
    np.testing.assert_array_equal(counted.experts, [[1, 0], [0, 1]])
    np.testing.assert_array_equal(counted.neurons, [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]])


def test_a_space_with_routed_experts_survives_json() -> None:
    space = describe_model(tiny_config("qwen2_moe"))
    assert ComponentSpace.from_json(space.to_json()) == space
    assert space.experts == 12


def test_the_first_activations_are_those_without_counting(tmp_path) -> None:
    """Shared expert of the first MoE layer: its input has passed no routed expert yet."""
    folder = save_tiny_model(tmp_path, "qwen2_moe", torch.bfloat16)
    prompts = make_prompts((20, 33, 7))
    ours, plain = (
        first_activations(load(folder, "bfloat16", count=count), prompts) for count in (True, False)
    )
    assert (ours == plain).float().mean() > 0.99
