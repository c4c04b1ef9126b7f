"""Experts whose activation gets its rows in the order of tokens, with a gate and without one."""

import numpy as np
import pytest
import torch

pytest.importorskip("vllm", reason="vLLM is not installed")

from sparcom.components import Site
from sparcom.counting.recorder import Recorder
from sparcom.engines.vllm.worker.counting_op import StepCounter

TOKENS, EXPERTS, TOP_K, WIDTH, SLOTS = 9, 4, 2, 6, 3


@pytest.mark.parametrize("gated", [True, False])
def test_counts_and_outputs_are_those_of_a_plain_loop(gated: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(TOKENS * TOP_K, WIDTH * (1 + gated), generator=generator)
    ids = torch.stack([torch.randperm(EXPERTS, generator=generator)[:TOP_K] for _ in range(TOKENS)])
    slots = torch.tensor([0, 0, 0, -1, 1, 1, 1, 1, 2], dtype=torch.int32)
    site = Site("routed", 0, WIDTH, "relu2", gated=gated, experts=EXPERTS, top_k=TOP_K)
    recorder = Recorder([site], SLOTS, threshold=0.0, signal="gate", verify=True, device="cpu")
    counter = StepCounter(recorder, TOKENS)
    counter.host.copy_(slots)
    counter.begin()
    out = torch.empty(TOKENS * TOP_K, WIDTH)
    counter.count_token_order(0, x, ids, None, out)

    fired = np.zeros((SLOTS, EXPERTS, WIDTH), np.int64)
    routed = np.zeros((SLOTS, EXPERTS), np.int64)
    rows = x.numpy()
    for token in range(TOKENS):
        for k in range(TOP_K):
            row, expert, slot = rows[token * TOP_K + k], ids[token, k], slots[token]
            gate, up = (row[:WIDTH], row[WIDTH:]) if gated else (row, 1.0)
            expected = np.maximum(gate, 0) ** 2 * up
            np.testing.assert_allclose(out[token * TOP_K + k].numpy(), expected, rtol=1e-6)
            if slot >= 0:
                fired[slot, expert] += gate > 0
                routed[slot, expert] += 1
    tokens = [int((slots == slot).sum()) for slot in range(SLOTS)]
    counted = recorder.take(["a", "b", "c"], range(SLOTS), tokens)
    assert np.array_equal(counted.neurons, fired.reshape(SLOTS, -1))
    assert np.array_equal(counted.experts, routed)
