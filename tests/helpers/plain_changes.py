"""transformers' own modules, unmodified, with a plain hook that changes h in every FFN."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM

Edit = Callable[[int, str, int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(layer, kind, expert, token of each row, gate, h) -> what h becomes; gate, h: [rows, width]."""


def plain_model(folder: Path | str, dtype: torch.dtype = torch.float32) -> Any:
    """The model of a folder, as transformers makes it, its experts computed one after another."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    model.set_experts_implementation("eager")
    return model.eval()


@torch.inference_mode()
def logits_of(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """[tokens, vocabulary] of one sequence."""
    return model(torch.tensor([list(ids)]), use_cache=False).logits[0]


def loss_of(model: Any, ids: Sequence[int], start: int, stop: int) -> float:
    """Mean negative log-likelihood of the tokens from start to stop, in nats."""
    scores = logits_of(model, ids).log_softmax(-1)
    return -sum(float(scores[at - 1, ids[at]]) for at in range(start, stop)) / (stop - start)


@contextmanager
def edited(model: Any, edit: Edit) -> Iterator[None]:
    """Within the block, `edit` changes h of every FFN; of models of one sequence with the names of
    Llama, Qwen2-MoE or GPT-2."""
    hooks, gates, banks = [], {}, []

    def dense(layer: int, kind: str, gate: Any, down: Any) -> None:
        def keep(_: Any, __: Any, out: torch.Tensor) -> None:
            gates[down] = out.reshape(-1, out.shape[-1])

        def change(_: Any, given: tuple) -> tuple:
            h = given[0].reshape(-1, given[0].shape[-1])
            tokens = torch.arange(len(h))
            return (edit(layer, kind, 0, tokens, gates[down], h).reshape(given[0].shape),)

        hooks.append(gate.register_forward_hook(keep))
        hooks.append(down.register_forward_pre_hook(change))

    layers = model.transformer.h if hasattr(model, "transformer") else model.model.layers
    for layer, block in enumerate(layers):
        mlp = block.mlp
        if hasattr(mlp, "c_fc"):
            dense(layer, "dense", mlp.c_fc, mlp.c_proj)
        elif hasattr(mlp, "gate_proj"):
            dense(layer, "dense", mlp.gate_proj, mlp.down_proj)
        else:
            shared = mlp.shared_expert
            dense(layer, "shared", shared.gate_proj, shared.down_proj)
            banks.append(_Experts(layer, mlp.experts, edit))
            hooks.append(mlp.experts.register_forward_pre_hook(banks[-1].begin))
    try:
        with _Linears(banks):
            yield
    finally:
        for hook in hooks:
            hook.remove()


class _Experts:
    """The experts of one layer: which of them a linear call is of, and for which tokens."""

    def __init__(self, layer: int, module: Any, edit: Edit) -> None:
        self.layer, self.module, self.edit = layer, module, edit

    def begin(self, _: Any, given: tuple) -> None:
        """The ids of the call that follows."""
        self.ids = given[1]

    def expert_of(self, weight: torch.Tensor, whole: torch.Tensor) -> int | None:
        """The expert whose slice of `whole` a weight is."""
        step = whole[0].numel() * whole.element_size()
        at, rest = divmod(weight.data_ptr() - whole.data_ptr(), step)
        return at if rest == 0 and 0 <= at < len(whole) else None

    def linear(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """What goes into a linear call: h as it is changed, if the call is a down projection."""
        if self.expert_of(weight, self.module.gate_up_proj) is not None:
            self.gate = F.linear(x, weight).chunk(2, -1)[0]
        expert = self.expert_of(weight, self.module.down_proj)
        if expert is None:
            return x
        _, tokens = torch.where((self.ids == expert).T)
        return self.edit(self.layer, "routed", expert, tokens, self.gate, x)


class _Linears(TorchFunctionMode):
    def __init__(self, banks: list[_Experts]) -> None:
        super().__init__()
        self.banks = banks

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.linear and len(args) == 2:
            x, weight = args
            for bank in self.banks:
                x = bank.linear(x, weight)
            args = (x, weight)
        return func(*args, **(kwargs or {}))
