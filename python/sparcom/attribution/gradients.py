"""Attributions of a loaded transformers engine: one forward and one backward pass a prompt."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

from sparcom.attribution.captured import Kept, keeping
from sparcom.attribution.relevance import conserved, relevance
from sparcom.attribution.rules import RULES
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.base import predicted
from sparcom.engines.model_facts import check_token_ids
from sparcom.engines.packing import Pass
from sparcom.engines.transformers import loading
from sparcom.engines.transformers.engine import TransformersEngine
from sparcom.errors import InputError, SparcomError

_OFF = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.1}
"""How far from 1 rounding may bring what is conserved, by the model's dtype."""


class Attributor:
    """Attributes the likelihood of an answer to the neurons of an engine.

        a_n = sum over the tokens t that are read of h_n(t) * dL / dh_n(t)
        L   = mean log-likelihood of the counted tokens, nats per token

    To first order it is what the loss rises by if the neuron is silenced; it is positive where the
    neuron helps. Where a token is not routed to a neuron's expert, h is 0.

    rule: "attribution", or "relp": coefficients of relevance in the place of the gradient.

    >>> Attributor(engine, "relp")(prompt).argsort()[-20:]
    """

    def __init__(self, engine: TransformersEngine, rule: str) -> None:
        if rule not in RULES:
            raise InputError(f"attribution: rule: expected {', '.join(RULES)}, got {rule!r}")
        self._engine, self._rule, self._checked = engine, rule, rule != "relp"

    def __call__(self, prompt: Prompt) -> np.ndarray:
        """[neurons] float64, nats per token of the answer.

        prompt: of scope "response", so that the counted tokens are the reference answer's.
        Raises InputError for a prompt without an answer, a model of which no gradient can be taken,
        or, with the first prompt, one whose relevance is not conserved; SparcomError if an
        attribution is not finite.
        """
        engine = self._engine
        check_token_ids(engine.options.model, [prompt], engine.vocabulary)
        if not self._checked:
            _check_conserved(engine, prompt)
            self._checked = True
        return _attribution(engine, prompt, self._rule)


def _attribution(engine: TransformersEngine, prompt: Prompt, rule: str) -> np.ndarray:
    kept: list[Kept] = []
    try:
        with ExitStack() as stack:
            stack.enter_context(engine.instrumentation.taken_out())
            stack.enter_context(_activations_alone(engine.model))
            stack.enter_context(keeping(engine.ffns, kept))
            if rule == "relp":
                stack.enter_context(relevance(engine.ffns))
            likelihood = _likelihood(_logits(engine, prompt), prompt)
        gradients = torch.autograd.grad(likelihood, [one.h for one in kept])
    except SparcomError:
        raise
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # what torch raises for an operator without a backward pass
        reason = loading.first_line(error)
        raise InputError(
            f"model {engine.options.model}: no gradient can be taken of it: {reason}"
        ) from error
    found = _summed(engine, kept, gradients)
    if not np.isfinite(found).all():
        raise SparcomError(
            f"attribution: that of instruction {prompt.id} is not finite in {engine.info.dtype}"
        )
    return found


def _logits(engine: TransformersEngine, prompt: Prompt) -> torch.Tensor:
    """[tokens, vocabulary] logits that predict the counted tokens."""
    if not predicted(prompt):
        raise InputError(
            f"instruction {prompt.id}: it has no answer whose likelihood could be told"
        )
    rows = torch.tensor(predicted(prompt)) - 1
    one = Pass((0,), len(prompt.token_ids))
    try:
        return engine.read([prompt], one, logits=True, keep=rows)
    finally:
        engine.counting().discard()


def _likelihood(logits: torch.Tensor, prompt: Prompt) -> torch.Tensor:
    wanted = torch.tensor([prompt.token_ids[at] for at in predicted(prompt)], device=logits.device)
    return logits.float().log_softmax(-1).gather(1, wanted[:, None]).mean()


@contextmanager
def _activations_alone(model: nn.Module) -> Iterator[None]:
    """Within the block, activations have gradients, and no parameter has."""

    def leaf(_: nn.Module, __: object, out: torch.Tensor) -> torch.Tensor:
        return out.detach().requires_grad_()

    before = [(p, p.requires_grad) for p in model.parameters()]
    embedding: nn.Module = model.get_input_embeddings()  # type: ignore[operator]  # untyped
    with ExitStack() as stack:
        for parameter, known in before:
            stack.callback(parameter.requires_grad_, known)
            parameter.requires_grad_(False)
        stack.callback(embedding.register_forward_hook(leaf).remove)
        stack.enter_context(torch.enable_grad())
        yield


def _summed(
    engine: TransformersEngine, kept: Sequence[Kept], gradients: Sequence[torch.Tensor]
) -> np.ndarray:
    space = engine.space
    out = np.zeros(space.neurons)
    for one, gradient in zip(kept, gradients, strict=True):
        site, start = space.sites[one.site], int(space.neuron_offsets[one.site])
        product = one.h.detach().float() * gradient.float()
        if one.expert is None:  # all experts, in order
            part = product.sum(1, dtype=torch.float64).reshape(-1)
        else:
            part = product.reshape(-1, site.width).sum(0, dtype=torch.float64)
            start += one.expert * site.width
        out[start : start + len(part)] += part.cpu().numpy()
    return out


def _check_conserved(engine: TransformersEngine, prompt: Prompt) -> None:
    """Raise InputError if a part of the model has no rule of relevance."""

    def output() -> torch.Tensor:
        return _logits(engine, prompt)[-1].float().max()

    with engine.instrumentation.taken_out():
        share = conserved(engine.model, engine.ffns, output)
    if abs(share - 1) > _OFF[engine.model.dtype]:
        raise InputError(
            f"model {engine.options.model}: relp: its relevance is not conserved: embeddings and "
            f"biases make up {share:.3f} of a logit, expected 1; a part of "
            f"{type(engine.model).__name__} has no rule; use --rule attribution"
        )
