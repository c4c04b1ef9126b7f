"""What vLLM computes wrongly on CPU: right in our workers, against plain torch."""

import pytest
import torch

pytest.importorskip("vllm", reason="vLLM is not installed")


@pytest.fixture(scope="module")
def vllm_classes():
    """(rotary embedding, router) of vLLM, put right; skipped where vLLM is built for a GPU."""
    from vllm.model_executor.layers.fused_moe.router.cpu_router import CPURouter
    from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding
    from vllm.platforms import current_platform

    from sparcom.engines.vllm.worker.cpu_faults import put_right

    if not current_platform.is_cpu():
        pytest.skip("these faults are those of vLLM's build for CPU")
    before = RotaryEmbedding.forward_cpu, CPURouter._compute_routing
    put_right()
    once = RotaryEmbedding.forward_cpu, CPURouter._compute_routing
    put_right()
    assert once == (RotaryEmbedding.forward_cpu, CPURouter._compute_routing) != before
    return RotaryEmbedding, CPURouter


def plain_rotation(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """x [tokens, heads, head] turned by angles [tokens, head / 2], halves of a head in pairs."""
    first, second = x.chunk(2, -1)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


@pytest.mark.parametrize("shaped", [True, False])
@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("tokens", [1, 7])
def test_each_head_of_each_token_is_rotated(vllm_classes, shaped, contiguous, tokens):
    torch.manual_seed(0)
    head, positions = 16, torch.arange(3, 3 + tokens)
    frequencies = 1e4 ** (-torch.arange(0, head, 2) / head)
    angles = torch.arange(32)[:, None] * frequencies
    rotary = torch.nn.Module()
    rotary.head_size, rotary.is_neox_style = head, True
    cache = torch.cat([angles.cos(), angles.sin()], -1)
    rotary._match_cos_sin_cache_dtype = lambda query: cache
    both = torch.randn(tokens, 6, head)
    query, key = both[:, :4], both[:, 4:]
    if contiguous:
        query, key = query.contiguous(), key.contiguous()
    expected = [plain_rotation(x, angles[positions]) for x in (query, key)]
    given = (query.clone(), key.clone()) if contiguous else (query, key)
    if not shaped:
        given = tuple(x.flatten(1) for x in given)
    found = vllm_classes[0].forward_cpu(rotary, positions, *given)
    for one, other, place in zip(found, expected, given, strict=True):
        assert one is place
        torch.testing.assert_close(one.reshape(other.shape), other)
    alone, none = vllm_classes[0].forward_cpu(rotary, positions, given[0].clone())
    assert none is None
    assert alone.shape == given[0].shape


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_a_bias_steers_the_choice_and_not_the_weights(vllm_classes, scoring, renormalize, biased):
    """As ERNIE 4.5 and MiniMax-M2 are built."""
    torch.manual_seed(1)
    logits, bias = torch.randn(9, 8), torch.randn(8) if biased else None
    router = vllm_classes[1](
        2, 8, renormalize=renormalize, scoring_func=scoring, e_score_correction_bias=bias,
        routed_scaling_factor=2.5 if biased else 1.0,
    )  # fmt: skip
    weights, ids = router._compute_routing(torch.zeros(9, 4), logits, None)
    scores = logits.softmax(-1) if scoring == "softmax" else logits.sigmoid()
    chosen = (scores + bias if biased else scores).argsort(1, descending=True)[:, :2]
    expected = scores.gather(1, chosen)
    if renormalize:
        expected /= expected.sum(1, keepdim=True)
    expected *= 2.5 if biased else 1.0
    ids, order = ids.sort(1)
    torch.testing.assert_close(ids.long(), chosen.sort(1)[0])
    torch.testing.assert_close(weights.gather(1, order), expected.gather(1, chosen.argsort(1)))


def test_other_routing_is_left_to_vllm(vllm_classes):
    def routing(hidden_states, gating_output, topk, renormalize):
        return gating_output[:, :topk], torch.zeros(len(gating_output), topk, dtype=torch.int32)

    logits = torch.randn(5, 8)
    custom = vllm_classes[1](2, 8, scoring_func="sigmoid", custom_routing_function=routing)
    weights, ids = custom._compute_routing(torch.zeros(5, 4), logits, None)
    assert torch.equal(weights, logits[:, :2])
    assert not ids.any()
    grouped = vllm_classes[1](
        2, 8, use_grouped_topk=True, num_expert_group=4, topk_group=1, scoring_func="sigmoid"
    )
    _, ids = grouped._compute_routing(torch.zeros(5, 4), logits, None)
    assert torch.equal(ids[:, 0] // 2, ids[:, 1] // 2)  # both in one group of two experts


@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_a_pass_of_one_token_is_convolved(vllm_classes, tokens):
    """vLLM's kernels meet rows that are cut from a wider product, as Qwen3.5 cuts them."""
    from vllm.model_executor.layers.mamba.ops.cpu import gdn_attention

    if not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("this processor does not run the kernel that refuses a single row")
    torch.manual_seed(2)
    seen: list[torch.Tensor] = []

    def convolve(layer, metadata, mixed_qkv, b, a, out):
        seen.extend([mixed_qkv.contiguous(), b.contiguous(), a.contiguous()])
        states = torch.zeros(2, 3, 64, dtype=torch.bfloat16).transpose(1, 2)
        found = gdn_attention.ops.causal_conv1d_fwd_cpu(
            x=seen[0].transpose(0, 1),
            weight=gdn_attention.ops.causal_conv1d_weight_pack(layer),
            bias=None,
            conv_states=states,
            query_start_loc=torch.tensor([0, tokens], dtype=torch.int32),
            cache_indices=torch.tensor([1], dtype=torch.int32),
            has_initial_state=torch.tensor([False]),
            silu_activation=True,
            is_weight_packed=True,
        )
        out.copy_(found.transpose(0, 1))

    from sparcom.engines.vllm.worker.cpu_faults import _of_whole_rows

    weight = torch.randn(64, 4).bfloat16()
    wide, gates = torch.randn(tokens, 96).bfloat16(), torch.randn(tokens, 8).bfloat16()
    given = wide[:, :64], *gates.chunk(2, 1)
    out = torch.empty(tokens, 64, dtype=torch.bfloat16)
    if tokens == 1:
        with pytest.raises(RuntimeError, match="expect x to be transposed"):
            convolve(weight, None, *given, out)
        seen.clear()
    _of_whole_rows(convolve)(weight, None, *given, out)
    for one, other in zip(seen, given, strict=True):
        assert torch.equal(one, other)
        assert one.stride() == (other.shape[1], 1)
    before = torch.cat([torch.zeros(3, 64), given[0].float()])
    plain = sum(before[at : at + tokens] * weight[:, at].float() for at in range(4))
    torch.testing.assert_close(out.float(), torch.nn.functional.silu(plain), rtol=2**-7, atol=2**-7)
