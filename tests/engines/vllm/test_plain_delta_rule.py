"""The plain delta rule that vLLM's kernels are compared with, against transformers' own code."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("vllm", reason="vLLM is not installed")

KEYS, VALUES, HEAD, WIDTH = 2, 4, 8, 4


def made_layer() -> SimpleNamespace:
    """What the rule reads of a layer: two key heads for four value heads of 8."""
    weight = torch.randn(2 * KEYS * HEAD + VALUES * HEAD, 1, WIDTH)
    return SimpleNamespace(
        prefix="layer", num_k_heads=KEYS, num_v_heads=VALUES, head_k_dim=HEAD, head_v_dim=HEAD,
        key_dim=KEYS * HEAD, value_dim=VALUES * HEAD,
        conv1d=SimpleNamespace(weight=weight, bias=torch.randn(len(weight))),
        A_log=torch.randn(VALUES), dt_bias=torch.randn(VALUES),
    )  # fmt: skip


def by_transformers(layer, x, b, a) -> torch.Tensor:
    """[tokens, heads, value] of one sequence, as transformers' Qwen3-Next computes it."""
    from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

    conv = layer.conv1d
    padded = F.pad(x.T[None], (WIDTH - 1, 0))
    mixed = F.silu(F.conv1d(padded, conv.weight, conv.bias, groups=len(conv.weight)))[0].T
    query, key, value = mixed.split([KEYS * HEAD, KEYS * HEAD, VALUES * HEAD], 1)
    query, key = (
        part.view(1, len(x), KEYS, HEAD).repeat_interleave(VALUES // KEYS, 2)
        for part in (query, key)
    )
    gate = -layer.A_log.exp() * F.softplus(a + layer.dt_bias)
    out, _ = torch_chunk_gated_delta_rule(
        query, key, value.view(1, len(x), VALUES, HEAD), g=gate[None], beta=b.sigmoid()[None],
        initial_state=None, output_final_state=False, use_qk_l2norm_in_kernel=True,
    )  # fmt: skip
    return out[0]


def test_two_sequences_in_parts_are_those_of_transformers() -> None:
    """A pass of new prompts, then one in which the first is decoded and the second goes on."""
    from plain_delta_rule import PlainDeltaRule

    torch.manual_seed(0)
    layer, rule = made_layer(), PlainDeltaRule()
    channels = len(layer.conv1d.weight)
    first, second = (
        (torch.randn(n, channels), torch.randn(n, VALUES), torch.randn(n, VALUES)) for n in (6, 9)
    )

    def one_pass(parts, decodes, goes_on):
        lengths = [len(part[0]) for part in parts]
        metadata = SimpleNamespace(
            num_decodes=decodes,
            num_prefills=len(parts) - decodes,
            non_spec_query_start_loc=torch.tensor([0, *lengths]).cumsum(0),
            non_spec_state_indices_tensor=torch.tensor([7, 3]),
            has_initial_state=torch.tensor(goes_on),
        )
        out = torch.empty(sum(lengths), VALUES, HEAD)
        rule(layer, metadata, *(torch.cat(some) for some in zip(*parts, strict=True)), out)
        return out.split(lengths)

    def cut(sequence, rows):
        return tuple(each[rows] for each in sequence)

    early = one_pass([cut(first, slice(5)), cut(second, slice(4))], 0, [False, False])
    late = one_pass([cut(first, slice(5, 6)), cut(second, slice(4, 9))], 1, [True, True])
    for whole, parts in ((first, (early[0], late[0])), (second, (early[1], late[1]))):
        torch.testing.assert_close(torch.cat(parts), by_transformers(layer, *whole))
    again = one_pass([cut(second, slice(4)), cut(first, slice(5))], 0, [False, False])
    torch.testing.assert_close(again[1], early[0])  # a slot that is used again starts from nothing
