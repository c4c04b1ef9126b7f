"""Ablating components of a loaded transformers engine, and its losses on reference answers.

The kernel itself ablates neurons (`keep` and `fill`), in every row: by zero, a factor, or their
mean. What depends on the row is done after it (`counting.changes`): silence by the sign of the
gate, and h of another instruction. An expert is all its neurons; or its router logit is raised, or
becomes -inf, so that the router takes its next choice.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from sparcom.ablation.ablator import Ablator, Answers, Prefix, Scores
from sparcom.ablation.resample import Donors, DonorValues
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.counting.changes import SilenceBySign
from sparcom.counting.masks import ablation_masks
from sparcom.counting.recorder import Recorder
from sparcom.engines.base import predicted
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.engines.transformers.sites import decoder_layers
from sparcom.errors import CountError, InputError, SparcomError


class TransformersAblator(Ablator):
    """Ablates components of a transformers engine that was loaded with counting."""

    engine: TransformersEngine
    engine_name = "transformers"
    _reading: tuple[str, ...] = ()  # ids of the current pass
    _donors: DonorValues | None = None

    def _ablate(
        self, index: np.ndarray, values: np.ndarray | None, factor: float, sign: int
    ) -> None:
        sites, model = self.engine.space.sites, self.engine.model
        like: dict[str, Any] = {"device": model.device, "dtype": model.dtype}
        if sign:
            signs = ablation_masks(sites, index, np.full(len(index), sign))
            by_sign = {at: SilenceBySign(found.to(**like)) for at, _, found in signs}
            self._recorder().ablate({}, by_sign)
            return
        self._recorder().ablate({
            at: (mask.to(**like), value.to(**like))
            for at, mask, value in ablation_masks(sites, index, values, factor)
        })  # fmt: skip

    def read_donors(self, donors: Donors, index: np.ndarray) -> None:
        """As `Ablator.read_donors`; nothing may be ablated meanwhile."""
        sites = [at for at, _, _ in ablation_masks(self.engine.space.sites, index)]
        self._donors = DonorValues(self.engine, donors, sites)

    @contextmanager
    def _resampled(self, index: np.ndarray) -> Iterator[None]:
        donors, recorder = self._donors, self._recorder()
        if donors is None:
            raise SparcomError("ablate: resample was asked for, but read_donors() has not run")
        chosen = ablation_masks(self.engine.space.sites, index, np.ones(len(index)))
        recorder.ablate({}, {at: donors.change(at, found > 0) for at, _, found in chosen})
        self.engine.before_pass = donors.begin
        try:
            yield
        finally:
            self.engine.before_pass = None
            recorder.ablate({})

    @contextmanager
    def _summing(self) -> Iterator[Callable[[], np.ndarray]]:
        with self._recorder().summing() as sums:
            yield lambda: np.concatenate([total.cpu().numpy().reshape(-1) for total in sums])

    @contextmanager
    def _routed(self, index: np.ndarray, shift: float) -> Iterator[None]:
        space = self.engine.space
        with ExitStack() as stack:
            for at, site in enumerate(space.sites):
                start, stop = space.expert_offsets[at : at + 2]
                inside = index[(index >= start) & (index < stop)] - start
                if not len(inside):
                    continue
                router = self._router(site.layer)
                weight: Any = router.weight
                chosen = torch.from_numpy(inside).to(weight.device)
                stack.callback(setattr, router, "forward", router.forward)
                router.forward = _shifted(router, router.forward, chosen, shift, site.name)
            yield

    def _recorder(self) -> Recorder:
        if self.engine.recorder is None:
            raise CountError("ablate: the engine was loaded with count=False")
        return self.engine.recorder

    def _router(self, layer: int) -> torch.nn.Module:
        found = [
            module
            for name, module in self.engine.model.named_modules()
            if hasattr(module, "top_k") and hasattr(module, "weight") and f".{layer}." in name
        ]
        if len(found) != 1:
            raise InputError(f"ablate: layer {layer} has {len(found)} routers, expected one")
        return found[0]

    def answers(self, prompts: Sequence[Prompt]) -> Answers:
        """As `Ablator.answers`, in the model's dtype."""
        return {
            prompt.id: rows.clone()
            for held, logits in self._passes(prompts)
            for prompt, rows in zip(held, logits.split(_sizes(held)), strict=True)
        }

    def bytes_of_answers(self, prompts: Sequence[Prompt]) -> int:
        """As `Ablator.bytes_of_answers`."""
        return sum(_sizes(prompts)) * self.engine.vocabulary * self.engine.model.dtype.itemsize

    def prefix(self, layer: int, prompts: Sequence[Prompt]) -> Prefix | None:
        """As `Ablator.prefix`; None too if the model does not read them as it reads its own."""
        if not layer:
            return None
        _, last = decoder_layers(self.engine.model)[layer - 1]
        made = Prefix(layer, {})

        def record(module: torch.nn.Module, given: object, out: object) -> None:
            made.outputs[self._reading] = out

        hook = last.register_forward_hook(record)
        try:
            straight = self.scores(prompts)
        finally:
            hook.remove()
        same = np.array_equal(straight.loss, self.scores(prompts, prefix=made).loss)
        return made if same else None

    def _scores(
        self, prompts: Sequence[Prompt], whole: Answers | None, prefix: Prefix | None
    ) -> Scores:
        found: dict[str, list[float]] = {}
        with self._continuing(prefix):
            for held, logits in self._passes(prompts):
                beside = None if whole is None else torch.cat([whole[p.id] for p in held])
                columns = [part.split(_sizes(held)) for part in _by_token(logits, held, beside)]
                for prompt, *parts in zip(held, *columns, strict=True):
                    found[prompt.id] = [float(part.mean()) for part in parts]
        rows = np.array([found[prompt.id] for prompt in prompts]).reshape(-1, 3)
        return Scores(*rows.T)

    @contextmanager
    def _continuing(self, prefix: Prefix | None) -> Iterator[None]:
        """Within the block, the first layers put out what a prefix holds."""
        layers = decoder_layers(self.engine.model)[: prefix.layers if prefix else 0]

        def recorded(*given: object, **named: object) -> Any:
            return prefix.outputs[self._reading] if prefix else None

        forwards = [module.forward for _, module in layers]
        for _, module in layers:
            module.forward = recorded
        try:
            yield
        finally:
            for (_, module), forward in zip(layers, forwards, strict=True):
                module.forward = forward

    @torch.inference_mode()
    def _passes(self, prompts: Sequence[Prompt]) -> Iterator[tuple[list[Prompt], torch.Tensor]]:
        """(the prompts of a pass, [tokens, vocabulary] logits that predict their counted ones)."""
        for one in self.engine.plan([len(p.token_ids) for p in prompts]):
            held = [prompts[i] for i in one.prompts]
            starts = np.cumsum([0, *(len(p.token_ids) for p in held)])
            rows = [start + at - 1 for start, p in zip(starts, held, strict=False)
                    for at in predicted(p)]  # fmt: skip
            self._reading = tuple(prompt.id for prompt in held)
            logits = self.engine.forward(held, one, logits=True, keep=torch.tensor(rows))
            self._recorder().discard()
            yield held, logits


def _sizes(prompts: Sequence[Prompt]) -> list[int]:
    return [len(predicted(prompt)) for prompt in prompts]


@torch.inference_mode()
def _by_token(
    logits: torch.Tensor, prompts: Sequence[Prompt], whole: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(loss, KL, changed), each [tokens]; NaN without the whole model's logits.

    logits, whole: [tokens, vocabulary]; row t says what the model expects at the next token.
    """
    ids = [prompt.token_ids[at] for prompt in prompts for at in predicted(prompt)]
    wanted = torch.tensor(ids, device=logits.device)
    ours = logits.float().log_softmax(-1)
    loss = -ours.gather(1, wanted[:, None])[:, 0]
    if whole is None:
        unknown = torch.full_like(loss, float("nan"))
        return loss, unknown, unknown
    kl = F.kl_div(ours, whole.float().log_softmax(-1), reduction="none", log_target=True).sum(-1)
    return loss, kl, (whole.argmax(-1) != logits.argmax(-1)).float()


class _Shift(TorchFunctionMode):
    """Adds to the router logits of some experts, where the router multiplies by its weight."""

    def __init__(self, weight: torch.Tensor, chosen: torch.Tensor, shift: float) -> None:
        super().__init__()
        self.weight, self.chosen, self.shift, self.seen = weight, chosen, shift, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is F.linear and out.shape[-1] == len(self.weight):
            self.seen += 1
            added = out.new_zeros(out.shape[-1]).index_fill(0, self.chosen, self.shift)
            out = out + added
        return out


def _shifted(router, forward, chosen, shift, name):
    def shifted_forward(*args, **kwargs):
        with _Shift(router.weight, chosen, shift) as mode:
            out = forward(*args, **kwargs)
        # Routers that add a bias to their scores, or take experts by groups, may choose a closed
        # one, with weight 0. Ids of experts are the only integers that routers return.
        ids = [part for part in out if not part.is_floating_point()] if shift == -math.inf else []
        if mode.seen != 1 or any(torch.isin(part, chosen).any() for part in ids):
            what = "boosted" if math.isfinite(shift) else "routed around"
            raise SparcomError(
                f"ablate: the router of {name} ({type(router).__name__}) cannot be {what}; "
                "ablate its experts with --how zero"
            )
        return out

    return shifted_forward
