"""Mixtures of experts on vLLM: routed and shared sites, in one piece and in shards."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_model
from vllm_tools import by_id, make_prompts, share_of_differing_cells

from sparcom.counting.counted import Counted
from sparcom.engines.base import EngineOptions
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.engines.vllm.engine import VllmEngine
from sparcom.engines.vllm.options import VllmOptions
from sparcom.engines.vllm.process import launch
from sparcom.engines.vllm.shards.group import ShardGroup
from sparcom.errors import InputError

pytest.importorskip("vllm", reason="vLLM is not installed")

from vllm.model_executor.layers.fused_moe.activation import MoEActivation

from sparcom.engines.vllm.worker import moe

LENGTHS = [1, 2, 128, 60, 33, 5, 90]
HEADS = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
LATENT = {"v_head_dim": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16}
FAMILIES = {
    "qwen2_moe": HEADS,
    "qwen3_moe": {**HEADS, "head_dim": 32},
    "mixtral": {**HEADS, "sliding_window": None},
    "olmoe": HEADS,
    "deepseek_v2": {**HEADS, **LATENT},
    "gpt_oss": {**HEADS, "head_dim": 32},  # clamped, interleaved, with biases
    "deepseek_v3": {**HEADS, **LATENT, "topk_method": "noaux_tc", "scoring_func": "sigmoid"},
}
pytestmark = pytest.mark.slow


def with_experts(groups: Iterable[Counted]) -> Iterator[Counted]:
    """Routed counts beside the neurons', so that both are compared."""
    for one in groups:
        yield replace(one, neurons=np.concatenate([one.neurons, one.experts], 1))


def options(folder: Path, **more) -> VllmOptions:
    more = {"dtype": "float32", "verify": True, **more}
    return VllmOptions(str(folder), batch_tokens=48, slots=4, threads=1, **more)


def expected(folder: Path):
    """(space, counts) of the transformers engine."""
    plain = EngineOptions(str(folder), dtype="float32", batch_tokens=256, threads=1, device="cpu")
    engine = TransformersEngine(plain)
    return engine.space, by_id(with_experts(engine.count(make_prompts(LENGTHS))))


@pytest.fixture(autouse=True)
def plain_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU with AMX vLLM's latent attention (DeepSeek) reads no weights in fp32."""
    monkeypatch.setenv("VLLM_MLA_DISABLE", "1")


def use_worker(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Give vLLM a worker of `moe_workers`."""
    args = launch.engine_args
    monkeypatch.setattr(
        launch, "engine_args", lambda *a: {**args(*a), "worker_cls": f"moe_workers.{name}"}
    )


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    """A model with a dense layer, routed and shared experts; (folder, space, counts)."""
    folder = tmp_path_factory.mktemp("qwen")
    save_tiny_model(folder, "qwen2_moe", torch.float32, **FAMILIES["qwen2_moe"])
    return folder, *expected(folder)


# Not DeepSeek: without latent attention, vLLM and transformers differ in the first layer already.
@pytest.mark.parametrize("family", [f for f in FAMILIES if "deepseek" not in f])
def test_counts_equal_the_transformers_engine(tmp_path, family):
    folder = save_tiny_model(tmp_path, family, torch.float32, **FAMILIES[family])
    space, theirs = expected(folder)
    engine = VllmEngine(options(folder))
    try:
        assert engine.space == space
        ours = by_id(with_experts(engine.count(make_prompts(LENGTHS))))
        assert share_of_differing_cells(ours, theirs) <= 1e-4
    finally:
        engine.close()


@pytest.mark.parametrize(
    "more",
    [{"tensor_parallel": 2}, {"tensor_parallel": 2, "expert_parallel": True},
     {"pipeline_parallel": 2}, {"compile": True}],
    ids=["tensor", "expert", "pipeline", "compiled"],
)  # fmt: skip
def test_shards_and_compiled_graphs_count_the_same(qwen, more):
    folder, space, theirs = qwen
    engine = VllmEngine(options(folder, **more))
    try:
        assert engine.space == space
        ours = by_id(with_experts(engine.count(make_prompts(LENGTHS))))
        assert share_of_differing_cells(ours, theirs) <= 1e-4
        if "expert_parallel" in more:
            experts = [set(shard.expert_indices()) for shard in engine.shards]
            assert sorted(map(len, experts)) == [6, 6]  # of 12: three of two layers each
            assert not experts[0] & experts[1]
    finally:
        engine.close()


def test_ray_actors_that_each_hold_whole_experts(qwen):
    import ray

    folder, space, theirs = qwen
    ray.init(
        num_cpus=4, include_dashboard=False, object_store_memory=128 << 20,
        _node_ip_address="127.0.0.1", log_to_driver=False,
    )  # fmt: skip
    try:
        group = ShardGroup(options(folder, tensor_parallel=2, expert_parallel=True))
        try:
            assert group.space == space
            ours = by_id(with_experts(group.count(make_prompts(LENGTHS))))
            assert share_of_differing_cells(ours, theirs) <= 1e-4
        finally:
            group.close()
    finally:
        ray.shutdown()


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_equal_a_plain_loop_on_the_same_passes(tmp_path, monkeypatch, family):
    use_worker(monkeypatch, "LoopWorker")
    found = tmp_path / "found"
    found.mkdir()
    monkeypatch.setenv("SPARCOM_TEST_FOLDER", str(found))
    folder = save_tiny_model(tmp_path / "model", family, torch.float32, **FAMILIES[family])
    engine = VllmEngine(options(folder, verify=False))
    try:
        space, prompts = engine.space, make_prompts(LENGTHS)
        ours = by_id(with_experts(engine.count(prompts)))
        (shard,) = engine.shards
        offsets = space.neuron_offsets, space.expert_offsets
        for prompt in prompts:
            row = ours[prompt.id][1]
            neurons, routed = row[: space.neurons], row[space.neurons :]
            loop = np.load(found / f"{prompt.id}.npz")
            seen = 0
            for at, local in enumerate(shard.sites):
                if not local.experts:
                    continue
                place = space.sites.index(local.site)
                (n0, n1), (e0, e1) = (o[place : place + 2] for o in offsets)
                assert np.array_equal(neurons[n0:n1], loop[f"{at}.fired"].reshape(-1))
                assert np.array_equal(routed[e0:e1], loop[f"{at}.routed"])
                seen += 1
            assert seen == sum(site.experts > 0 for site in space.sites) >= 2
    finally:
        engine.close()


@pytest.mark.parametrize("more", [{}, {"tensor_parallel": 2, "expert_parallel": True}])
def test_rows_in_the_order_of_tokens_as_on_cuda(qwen, monkeypatch, more):
    folder, _, theirs = qwen
    use_worker(monkeypatch, "TokenOrderWorker")
    engine = VllmEngine(options(folder, **more))
    try:
        ours = by_id(with_experts(engine.count(make_prompts(LENGTHS))))
        assert share_of_differing_cells(ours, theirs) <= 1e-4
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": Enum("Other", "xielu").xielu}, "activation 1 cannot be counted"),
        ({"is_lora_enabled": True}, "LoRA on experts cannot be counted"),
        ({"num_experts": 7}, "shared experts inside the routed ones cannot be counted"),
    ],
)
def test_experts_that_cannot_be_counted_are_refused_by_name(changes, message: str) -> None:
    plain = {
        "activation": MoEActivation.SILU, "is_lora_enabled": False,
        "num_experts": 6, "num_logical_experts": 6,
        "moe_parallel_config": SimpleNamespace(
            is_sequence_parallel=False, use_all2all_kernels=False, enable_eplb=False
        ),
    }  # fmt: skip
    experts = SimpleNamespace(
        quant_method=SimpleNamespace(
            moe_kernel=SimpleNamespace(fused_experts=moe.CountedExperts.__new__(moe.CountedExperts))
        ),
        apply_router_weight_on_input=False,
    )
    for given in (plain, plain | changes):
        runner = SimpleNamespace(moe_config=SimpleNamespace(**given), routed_experts=experts)
        if given is plain:
            moe._refuse("layers.0.mlp.experts", runner)
            continue
        with pytest.raises(InputError, match=rf"^layers\.0\.mlp\.experts \(.*: {message}$"):
            moe._refuse("layers.0.mlp.experts", runner)
