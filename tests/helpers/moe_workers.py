"""Workers that tests give to vLLM in place of the counting one.

LoopWorker counts a second time by a plain loop over the experts, on the same passes, and writes
what it found to the folder $SPARCOM_TEST_FOLDER. TokenOrderWorker runs experts that call their
activation in the order of tokens, as vLLM's Triton implementation does on CUDA.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
from vllm.model_executor.layers.fused_moe.oracle.unquantized import UnquantizedMoeBackend

from sparcom.engines.vllm.worker import counting_op, moe
from sparcom.engines.vllm.worker.worker import CountingWorker


class LoopWorker(CountingWorker):
    def load_model(self, *args: Any, **options: Any) -> None:
        super().load_model(*args, **options)
        counter, slots = counting_op._counter, self.sparcom_recorder.slots
        self.loop: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for at, bank in counter.experts.items():
            shape = (slots, len(bank.down))
            fired = np.zeros((*shape, bank.site.width), np.int64)
            self.loop[at] = fired, np.zeros(shape, np.int64)
            counter.experts[at] = self._looping(bank, *self.loop[at])

    def _looping(self, bank: Any, fired: np.ndarray, routed: np.ndarray) -> Any:
        rows = slice(None, None, 2) if bank.turns else slice(bank.site.width)
        bias = bank.biases[0].double() if bank.biases else torch.zeros(len(bank.down), 1)

        def run(hidden: Tensor, ids: Tensor, weights: Tensor, out: Tensor) -> Tensor:
            gates = [
                (hidden.double() @ w.double() + b)[:, rows]
                for w, b in zip(bank.gate_up, bias, strict=True)
            ]
            for row, slot in enumerate(self.sparcom_recorder._bins.tolist()):
                for expert in ids[row].tolist() if slot >= 0 else ():
                    fired[slot, expert] += (gates[expert][row] > 0).numpy()
                    routed[slot, expert] += 1
            return bank(hidden, ids, weights, out)

        return run

    def sparcom_take(self, ids, slots, tokens) -> dict[str, Any]:
        for name, slot in zip(ids, slots, strict=True):
            found = {}
            for at, (fired, routed) in self.loop.items():
                found[f"{at}.fired"], found[f"{at}.routed"] = (
                    fired[slot].copy(),
                    routed[slot].copy(),
                )
                fired[slot], routed[slot] = 0, 0
            np.savez(Path(os.environ["SPARCOM_TEST_FOLDER"]) / name, **found)
        return super().sparcom_take(ids, slots, tokens)


class _PlainExperts(CPUUnquantizedExperts):
    """One product per token and expert; rows of other workers' experts are never written."""

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        pass

    def apply(
        self, output, hidden_states, w1, w2, topk_weights, topk_ids, activation, *others,
        expert_map, **more,
    ) -> None:  # fmt: skip
        top_k = topk_ids.shape[1]
        local = topk_ids.long() if expert_map is None else expert_map[topk_ids.long()].long()
        first = torch.full((topk_ids.numel(), w1.shape[1]), torch.nan, dtype=w1.dtype)
        here = (local.reshape(-1) >= 0).nonzero()[:, 0]
        for row in here.tolist():
            first[row] = w1[local.reshape(-1)[row]] @ hidden_states[row // top_k]
        h = torch.empty(len(first), w2.shape[2], dtype=w1.dtype)
        self.activation(activation, h, first)
        output.zero_()
        for row in here.tolist():
            y = w2[local.reshape(-1)[row]] @ h[row]
            output[row // top_k] += y * topk_weights.reshape(-1)[row]


class TokenOrderExperts(moe.TokenOrder, _PlainExperts):
    pass


class TokenOrderWorker(CountingWorker):
    def load_model(self, *args: Any, **options: Any) -> None:
        moe.implementation = lambda: (UnquantizedMoeBackend.CPU, TokenOrderExperts)
        super().load_model(*args, **options)
