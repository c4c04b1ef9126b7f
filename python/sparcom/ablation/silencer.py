"""Silencing components of a loaded transformers engine, and its losses on reference answers.

Neurons are silenced by the kernel itself (`keep` and `fill`), in every row. An expert is silenced
by zero output (all its neurons), by the mean of its neurons, or by routing around it: its router
logit becomes -inf, so that the router takes its next choice.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from sparcom.ablation.target import Target
from sparcom.components import ComponentSpace
from sparcom.corpus.prompts import Prompt
from sparcom.engines.packing import plan_passes
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.errors import InputError, SparcomError

HOW = ("zero", "mean", "route")


class Silencer:
    """Measures losses of an engine with components silenced.

    engine: loaded with counting. how: one of `HOW`; "mean" needs `calibrate` first.

    >>> silencer = Silencer(engine, "zero")
    >>> plain = silencer.losses(prompts)
    >>> with silencer.silenced(target):
    ...     effect = silencer.losses(prompts) - plain
    """

    def __init__(self, engine: TransformersEngine, how: str = "zero") -> None:
        if how not in HOW:
            raise InputError(f"ablate: how: expected {', '.join(HOW)}, got {how!r}")
        self.engine, self.how = engine, how
        self._means: np.ndarray | None = None

    def calibrate(self, prompts: Sequence[Prompt]) -> np.ndarray:
        """[neurons] float64: mean of each neuron's h over the counted tokens that reach it; 0 where
        none does."""
        recorder, space = self.engine.recorder, self.engine.space
        seen = [np.zeros(site.bins) for site in space.sites]
        with recorder.summing() as sums:
            for counted in self.engine.count(prompts):
                for at, site in enumerate(space.sites):
                    start, stop = space.expert_offsets[at : at + 2]
                    seen[at] += counted.experts[:, start:stop].sum(0) if site.experts else (
                        counted.tokens.sum()
                    )  # fmt: skip
        parts = [
            total.cpu().numpy() / np.maximum(rows, 1)[:, None]
            for total, rows in zip(sums, seen, strict=True)
        ]
        self._means = np.concatenate([part.reshape(-1) for part in parts])
        return self._means

    @contextmanager
    def silenced(self, target: Target) -> Iterator[None]:
        """Within the block, the components of a target are silenced."""
        if self.how == "route":
            if target.family != "experts":
                raise InputError("ablate: only experts can be routed around; use --family experts")
            with self._routed_around(target.index):
                yield
            return
        recorder = self.engine.recorder
        recorder.silence(self._masks(target))
        try:
            yield
        finally:
            recorder.silence({})

    def _masks(self, target: Target) -> dict[int, tuple[torch.Tensor, torch.Tensor | None]]:
        space, model = self.engine.space, self.engine.model
        index = neurons_of(target, space)
        if self.how == "mean" and self._means is None:
            raise SparcomError("ablate: the mean was asked for, but calibrate() has not run")
        masks = {}
        for at, site in enumerate(space.sites):
            start, stop = space.neuron_offsets[at : at + 2]
            inside = index[(index >= start) & (index < stop)]
            if not len(inside):
                continue
            keep = np.ones(site.neurons)
            keep[inside - start] = 0
            fill = np.zeros(site.neurons)
            if self.how == "mean":
                fill[inside - start] = self._means[inside]
            masks[at] = tuple(
                torch.from_numpy(v.reshape(site.bins, site.width)).to(model.device, model.dtype)
                for v in (keep, fill)
            )
        return masks

    @contextmanager
    def _routed_around(self, index: np.ndarray) -> Iterator[None]:
        space = self.engine.space
        with ExitStack() as stack:
            for at, site in enumerate(space.sites):
                start, stop = space.expert_offsets[at : at + 2]
                inside = index[(index >= start) & (index < stop)] - start
                if not len(inside):
                    continue
                if site.experts - len(inside) < site.top_k:
                    raise InputError(
                        f"ablate: {site.name} has {site.experts} experts and each token takes "
                        f"{site.top_k}: {len(inside)} cannot be routed around"
                    )
                router = self._router(site.layer)
                closed = torch.from_numpy(inside).to(router.weight.device)
                stack.callback(setattr, router, "forward", router.forward)
                router.forward = _around(router, router.forward, closed, site.name)
            yield

    def _router(self, layer: int) -> torch.nn.Module:
        found = [
            module
            for name, module in self.engine.model.named_modules()
            if hasattr(module, "top_k") and hasattr(module, "weight") and f".{layer}." in name
        ]
        if len(found) != 1:
            raise InputError(f"ablate: layer {layer} has {len(found)} routers, expected one")
        return found[0]

    @torch.inference_mode()
    def losses(self, prompts: Sequence[Prompt]) -> np.ndarray:
        """[n] mean negative log-likelihood, in nats per token, of each prompt's counted tokens.

        prompts: of scope "response", so that these are the reference answer's, read after the
        prompt.
        """
        out = np.full(len(prompts), np.nan)
        lengths, options = [len(p.token_ids) for p in prompts], self.engine.options
        for one in plan_passes(
            lengths, options.batch_tokens, options.slots, self.engine.solo_above
        ):
            held = [prompts[i] for i in one.prompts]
            logits = self.engine.forward(held, one, logits=True)
            self.engine.recorder.discard()
            start = 0
            for at, prompt in zip(one.prompts, held, strict=True):
                out[at] = _loss(logits[start : start + len(prompt.token_ids)], prompt)
                start += len(prompt.token_ids)
        wrong = np.flatnonzero(~np.isfinite(out))
        if len(wrong):
            raise SparcomError(f"ablate: the loss of {prompts[wrong[0]].id} is not finite")
        return out


def neurons_of(target: Target, space: ComponentSpace) -> np.ndarray:
    """Flat neuron indices of a target; of experts, all their neurons."""
    if target.family == "neurons":
        return target.index
    return np.flatnonzero(np.isin(space.neuron_experts, target.index))


def _loss(logits: torch.Tensor, prompt: Prompt) -> float:
    """logits: [tokens, vocabulary]; row t says what the model expects at t + 1."""
    at = torch.cat([torch.arange(max(a, 1), b) for a, b in prompt.counted]).to(logits.device)
    wanted = torch.tensor(prompt.token_ids, device=logits.device)[at]
    return float(F.cross_entropy(logits[at - 1].float(), wanted))


class _Close(TorchFunctionMode):
    """Router logits of some experts become -inf, where the router multiplies by its weight."""

    def __init__(self, weight: torch.Tensor, closed: torch.Tensor) -> None:
        super().__init__()
        self.weight, self.closed, self.seen = weight, closed, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is F.linear and out.shape[-1] == len(self.weight):
            self.seen += 1
            out = out.index_fill(-1, self.closed, float("-inf"))
        return out


def _around(router, forward, closed, name):
    def closed_forward(*args, **kwargs):
        with _Close(router.weight, closed) as mode:
            out = forward(*args, **kwargs)
        if mode.seen != 1:
            raise SparcomError(
                f"ablate: the router of {name} ({type(router).__name__}) cannot be routed around; "
                "silence its experts with --how zero"
            )
        return out

    return closed_forward
