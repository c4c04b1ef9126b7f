"""Packed attention against the formula written out, token by token."""

import math

import pytest
import torch

from sparcom.engines.transformers.attention import packed_attention, prompt_spans
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
    "window": {"sliding_window": 3},
    "window_of_one": {"sliding_window": 1},
    "window_wider_than_any": {"sliding_window": 50},
    "softcap": {"softcap": 1.5},
    "softcap_window": {"softcap": 1.5, "sliding_window": 4, "scaling": 0.5},
    "sinks": {"s_aux": SINKS},
    "sinks_window": {"s_aux": SINKS, "sliding_window": 2},
}
SPANS = ((0, 1), (1, 8), (8, 10), (10, 11), (11, 17))


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_prompt_attends_to_itself_by_the_formula(variant: str) -> None:
    options = VARIANTS[variant]
    q, k, v = tensors(20)
    with prompt_spans(SPANS):
        out, weights = packed_attention(torch.nn.Identity(), q, k, v, None, **options)
    names = {"sliding_window": "window", "s_aux": "sinks"}
    expected = plain(q, k, v, SPANS, **{names.get(n, n): o for n, o in options.items()})
    assert weights is None
    assert out.shape == (1, 20, HEADS, VALUE_DIM)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


def test_rows_of_no_prompt_are_zero_even_where_their_input_is_not_a_number() -> None:
    q, k, v = tensors(20)
    for tensor in (q, k, v):
        tensor[:, :, 17:] = float("nan")
    with prompt_spans(SPANS):
        out, _ = packed_attention(torch.nn.Identity(), q, k, v, None)
    assert (out[:, 17:] == 0).all()
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_prompt_comes_out_the_same_bits_wherever_it_lies(variant: str) -> None:
    q, k, v = tensors(20)
    with prompt_spans(SPANS):
        together, _ = packed_attention(torch.nn.Identity(), q, k, v, None, **VARIANTS[variant])
    for start, stop in SPANS:
        part = [t[:, :, start:stop] for t in (q, k, v)]
        with prompt_spans([(0, stop - start)]):
            alone, _ = packed_attention(torch.nn.Identity(), *part, None, **VARIANTS[variant])
        assert torch.equal(alone, together[:, start:stop])


def test_an_unknown_keyword_is_refused_by_name() -> None:
    q, k, v = tensors(2)
    with pytest.raises(SparcomError, match="Identity hands alibi_bias, tree to its attention"):
        packed_attention(torch.nn.Identity(), q, k, v, None, tree=1, alibi_bias=torch.ones(1))


def test_a_mask_that_a_model_made_itself_is_refused() -> None:
    """Doge's kind: ignoring it would change the model without a word."""
    q, k, v = tensors(2)
    with prompt_spans([(0, 2)]), pytest.raises(SparcomError, match="hands a mask of its own"):
        packed_attention(torch.nn.Identity(), q, k, v, torch.zeros(1, 1, 2, 2))


def test_keywords_that_change_nothing_pass() -> None:
    q, k, v = tensors(2)
    with prompt_spans([(0, 2)]):
        plain_out, _ = packed_attention(torch.nn.Identity(), q, k, v, None)
        out, _ = packed_attention(
            torch.nn.Identity(), q, k, v, None, use_cache=False, is_causal=True, alibi_bias=None
        )
    assert torch.equal(out, plain_out)


def test_spans_end_with_their_block_even_after_an_error() -> None:
    q, k, v = tensors(3)

    def fail() -> None:
        with prompt_spans([(0, 3)]):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with pytest.raises(LookupError, match="sparcom_spans"):  # not zeros for want of prompts
        packed_attention(torch.nn.Identity(), q, k, v, None)
