"""Packed attention against the formula written out, token by token."""

import math

import pytest
import torch
from transformers.masking_utils import (
    bidirectional_mask_function,
    causal_mask_function,
    sliding_window_causal_mask_function,
)

from sparcom.engines.transformers.attention import packed_attention, packed_mask, prompt_spans
from sparcom.errors import SparcomError

HEADS, KV_HEADS, DIM, VALUE_DIM = 4, 2, 8, 6


def plain(q, k, v, spans, scaling=None, window=None, softcap=None, sinks=None) -> torch.Tensor:
    """[1, rows, heads, dim] in double precision: one query, one head, one key at a time."""
    out = torch.zeros(1, q.shape[2], q.shape[1], v.shape[3], dtype=torch.float64)
    scale = q.shape[3] ** -0.5 if scaling is None else scaling
    for start, stop in spans:
        for head in range(q.shape[1]):
            kv = head // (q.shape[1] // k.shape[1])
            for at in range(start, stop):
                first = start if window is None else max(start, at - window + 1)
                keys = range(first, at + 1)
                scores = [
                    float(q[0, head, at].double() @ k[0, kv, j].double()) * scale for j in keys
                ]
                if softcap is not None:
                    scores = [math.tanh(s / softcap) * softcap for s in scores]
                total = sum(math.exp(s) for s in scores)
                total += math.exp(float(sinks[head])) if sinks is not None else 0.0
                for s, j in zip(scores, keys, strict=True):
                    out[0, at, head] += math.exp(s) / total * v[0, kv, j].double()
    return out


def tensors(rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    sizes = ((HEADS, DIM), (KV_HEADS, DIM), (KV_HEADS, VALUE_DIM))
    return tuple(2 * torch.randn(1, h, rows, d, generator=generator) for h, d in sizes)


SINKS = torch.tensor([-1.0, 0.0, 2.0, 5.0])
VARIANTS = {
    "plain": {},
    "scaled": {"scaling": 0.3},
    "window": {"window": 3},
    "window_of_one": {"window": 1},
    "window_wider_than_any": {"window": 50},
    "softcap": {"softcap": 1.5},
    "softcap_window": {"softcap": 1.5, "window": 4, "scaling": 0.5},
    "sinks": {"s_aux": SINKS},
    "sinks_window": {"s_aux": SINKS, "window": 2},
}
SPANS = ((0, 1), (1, 8), (8, 10), (10, 11), (11, 17))


def run(q, k, v, spans, window: int | None = None, **options):
    """Packed attention under the mask that transformers makes for a window."""
    function = sliding_window_causal_mask_function(window) if window else causal_mask_function
    with prompt_spans(spans):
        mask = packed_mask(1, q.shape[2], q.shape[2], mask_function=function, device=q.device)
        return packed_attention(torch.nn.Identity(), q, k, v, mask, **options)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_prompt_attends_to_itself_by_the_formula(variant: str) -> None:
    options = VARIANTS[variant]
    q, k, v = tensors(20)
    out, weights = run(q, k, v, SPANS, **options)
    expected = plain(
        q, k, v, SPANS, **{{"s_aux": "sinks"}.get(n, n): o for n, o in options.items()}
    )
    assert weights is None
    assert out.shape == (1, 20, HEADS, VALUE_DIM)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


def test_rows_of_no_prompt_are_zero_even_where_their_input_is_not_a_number() -> None:
    q, k, v = tensors(20)
    for tensor in (q, k, v):
        tensor[:, :, 17:] = float("nan")
    out, _ = run(q, k, v, SPANS)
    assert (out[:, 17:] == 0).all()
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_prompt_comes_out_the_same_bits_wherever_it_lies(variant: str) -> None:
    q, k, v = tensors(20)
    together, _ = run(q, k, v, SPANS, **VARIANTS[variant])
    for start, stop in SPANS:
        part = [t[:, :, start:stop] for t in (q, k, v)]
        alone, _ = run(*part, [(0, stop - start)], **VARIANTS[variant])
        assert torch.equal(alone, together[:, start:stop])


# -- masks ----------------------------------------------------------------------------------------


def mask_of(function, spans=SPANS, rows: int = 20) -> torch.Tensor | None:
    with prompt_spans(spans):
        return packed_mask(1, rows, rows, mask_function=function, device="cpu")


def test_a_causal_mask_needs_none_and_neither_does_a_window_that_no_prompt_exceeds() -> None:
    assert mask_of(causal_mask_function) is None
    assert mask_of(sliding_window_causal_mask_function(7)) is None


@pytest.mark.parametrize("vmap", [False, True])
def test_a_mask_says_what_the_model_says_within_each_prompt(vmap: bool) -> None:
    with prompt_spans(SPANS):
        mask = packed_mask(
            1, 20, 20, mask_function=sliding_window_causal_mask_function(3), use_vmap=vmap
        )
    expected = torch.zeros(20, 20, dtype=torch.bool)
    for start, stop in SPANS:
        for at in range(start, stop):
            expected[at, max(start, at - 2) : at + 1] = True
    assert torch.equal(mask[0, 0], expected)


def test_attention_that_looks_ahead_sees_its_own_prompt_alone() -> None:
    q, k, v = tensors(9)
    with prompt_spans([(0, 4), (4, 9)]):
        mask = packed_mask(1, 9, 9, mask_function=bidirectional_mask_function)
        out, _ = packed_attention(torch.nn.Identity(), q, k, v, mask)
    for start, stop in ((0, 4), (4, 9)):
        part = [
            t[:, :, start:stop] for t in (q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1))
        ]
        expected = torch.nn.functional.scaled_dot_product_attention(*part)
        torch.testing.assert_close(out[:, start:stop], expected.transpose(1, 2))


def test_a_mask_of_numbers_is_added_to_the_scores() -> None:
    """As models hand over that make masks of their own, Doge's kind."""
    q, k, v = tensors(8)
    bias = torch.randn(1, HEADS, 8, 8, generator=torch.Generator().manual_seed(0))
    with prompt_spans([(0, 3), (3, 8)]):
        out, _ = packed_attention(torch.nn.Identity(), q, k, v, bias)
    for start, stop in ((0, 3), (3, 8)):
        part = [
            t[:, :, start:stop] for t in (q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1))
        ]
        scores = part[0] @ part[1].transpose(2, 3) * DIM**-0.5 + bias[:, :, start:stop, start:stop]
        expected = (scores.softmax(-1) @ part[2]).transpose(1, 2)
        torch.testing.assert_close(out[:, start:stop], expected, rtol=1e-5, atol=1e-5)


# -- what is not known ----------------------------------------------------------------------------


def test_an_unknown_keyword_is_refused_by_name() -> None:
    q, k, v = tensors(2)
    with (
        prompt_spans([(0, 2)]),
        pytest.raises(SparcomError, match="Identity hands alibi_bias, tree to its attention"),
    ):
        packed_attention(torch.nn.Identity(), q, k, v, None, tree=1, alibi_bias=torch.ones(1))


@pytest.mark.parametrize(("shape", "keys"), [((1, 1, 2, 2), 3), ((1, 1, 3, 2), 3)])
def test_keys_and_masks_of_other_rows_are_refused(shape, keys) -> None:
    q, k, v = tensors(3)
    cut = [t[:, :, : keys - (shape == (1, 1, 3, 2))] for t in (k, v)]
    with prompt_spans([(0, 3)]), pytest.raises(SparcomError, match=r"a mask of|2 keys for 3 que"):
        packed_attention(torch.nn.Identity(), q, *cut, torch.zeros(shape))


def test_keywords_that_change_nothing_pass() -> None:
    q, k, v = tensors(2)
    with prompt_spans([(0, 2)]):
        plain_out, _ = packed_attention(torch.nn.Identity(), q, k, v, None)
        out, _ = packed_attention(
            torch.nn.Identity(), q, k, v, None, use_cache=False, is_causal=True, alibi_bias=None,
            sliding_window=1,
        )  # fmt: skip
    assert torch.equal(out, plain_out)


def test_spans_end_with_their_block_even_after_an_error() -> None:
    q, k, v = tensors(3)

    def fail() -> None:
        with prompt_spans([(0, 3)]):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with pytest.raises(LookupError, match="sparcom_packing"):  # not zeros for want of prompts
        packed_attention(torch.nn.Identity(), q, k, v, None)
