"""RelP: the backward pass propagates relevance in place of gradients (arXiv 2508.21258).

Every operation is replaced by a linear one that has the same value, so that what arrives at h is
the coefficient of layer-wise relevance propagation, and h times it is h's relevance:

    norms                 x / norm(x)         the norm is a constant             (LN-rule)
    attention, routing    softmax, sigmoid    the weights are constants          (AH-rule)
    activations, clamps   f(x)                x * [f(x) / x]                     (identity rule)
    products of two       a * b               a * [b] / 2 + [a] * b / 2          (half rule)

[ ]: a constant. Linear layers and sums stay (0-rule); a bias takes its own part of the relevance.
The forward pass changes no bit. A function without a rule that is not linear would break
conservation: the relevance of the embeddings and biases is then not that of the output.
`conserved` measures it, so that a model whose relevance is not conserved can be refused.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sparcom.engines.transformers.sites import Ffn

_TINY = 2.0**-10  # in the place of 0, at which f(x) / x is its limit

Rule = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


@contextmanager
def relevance(ffns: Sequence[Ffn]) -> Iterator[None]:
    """Within the block, gradients of a pass are coefficients of relevance."""
    with ExitStack() as stack:
        modules = {id(m): m for m in map(_activation_of, ffns) if isinstance(m, nn.Module)}
        for module in modules.values():  # some write their formula out
            stack.callback(delattr, module, "forward")
            module.forward = _linear_activation(module.forward)
        stack.enter_context(_Rules())
        yield


def _activation_of(ffn: Ffn) -> Any:
    return attrgetter(ffn.act)(ffn.module) if ffn.act else None


def _linear_activation(f: Callable[..., torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: _as_share(f, x)


class _Rules(TorchFunctionMode):
    """Applies the rules to torch's functions, by their names."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given: dict[str, Any] = kwargs or {}
        return _RULES.get(getattr(func, "__name__", ""), _as_is)(func, args, given)


def _as_is(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs)


def _constant(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs).detach()


def _attention(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Fused attention: without gradients of query and key, its weights are constants."""
    args = tuple(one.detach() if at < 2 else one for at, one in enumerate(args))
    given = {n: one.detach() if n in ("query", "key") else one for n, one in kwargs.items()}
    return func(*args, **given)


def _share(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, rest = args[0], args[1:]
    if not x.requires_grad:
        return func(*args, **kwargs)
    given = {n: False if n == "inplace" else one for n, one in kwargs.items()}
    return _as_share(lambda y: func(y, *rest, **given), x)


def _as_share(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """f(x), with the gradient of x * [f(x) / x]."""
    with torch.no_grad():
        value = f(x.detach())
        beside = torch.where(x == 0, _TINY, x)
        share = f(beside) / beside
    return _valued(value, x * share)


def _half(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    y = func(*args, **kwargs)
    two = sum(isinstance(one, torch.Tensor) and one.requires_grad for one in args[:2]) == 2
    return 0.5 * y + 0.5 * y.detach() if two else y


def _power(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A negative power, of a norm."""
    exponent = args[1] if len(args) > 1 else kwargs.get("exponent")
    y = func(*args, **kwargs)
    return y.detach() if isinstance(exponent, (int, float)) and exponent < 0 else y


def _layer_norm(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _norm(func, args, kwargs, ("input", "normalized_shape", "weight", "bias", "eps"), True)


def _rms_norm(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _norm(func, args, kwargs, ("input", "normalized_shape", "weight", "eps"), False)


def _norm(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    names: tuple[str, ...],
    centred: bool,
) -> torch.Tensor:
    """A fused norm over the last dimensions, its scale a constant."""
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    x, shape = given["input"], given["normalized_shape"]
    dims = tuple(range(-len(shape), 0))
    middle = x - x.mean(dims, keepdim=True) if centred else x
    eps = given.get("eps")
    eps = (1e-5 if centred else torch.finfo(x.dtype).eps) if eps is None else eps
    with torch.no_grad():
        scale = torch.rsqrt(middle.float().square().mean(dims, keepdim=True) + eps)
    y = middle * scale.to(x.dtype)
    if given.get("weight") is not None:
        y = y * given["weight"]
    if given.get("bias") is not None:
        y = y + given["bias"]
    with torch.no_grad():
        value = func(*args, **kwargs)
    return _valued(value, y)


def _valued(value: torch.Tensor, linear: torch.Tensor) -> torch.Tensor:
    """`value`, with the gradient of `linear`."""
    return value.detach() + (linear - linear.detach())


_RULES: dict[str, Rule] = {
    **dict.fromkeys(("softmax", "_softmax", "sigmoid", "rsqrt", "sqrt"), _constant),
    **dict.fromkeys(("silu", "gelu", "relu", "tanh", "clamp", "clip"), _share),
    **dict.fromkeys(("mul", "multiply", "__mul__", "__rmul__"), _half),
    **dict.fromkeys(("pow", "__pow__"), _power),
    "scaled_dot_product_attention": _attention,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
}


def conserved(model: nn.Module, ffns: Sequence[Ffn], output: Callable[[], torch.Tensor]) -> float:
    """The share of an output that the relevance of embeddings and biases makes up; 1 if every part
    of the model has a rule.

    output: runs a pass and returns one number, a sum of logits.
    """
    leaves: list[torch.Tensor] = []

    def leaf(_: nn.Module, __: Any, out: torch.Tensor) -> torch.Tensor:
        leaves.append(out.detach().requires_grad_())
        return leaves[-1]

    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    biases = [p for p in biases if p.is_floating_point()]
    before = [(p, p.requires_grad) for p in model.parameters()]
    with ExitStack() as stack, torch.enable_grad():
        for parameter, known in before:
            stack.callback(parameter.requires_grad_, known)
            parameter.requires_grad_(False)
        for bias in biases:
            bias.requires_grad_()
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                stack.callback(module.register_forward_hook(leaf).remove)
        with relevance(ffns):
            value = output()
        every = [*leaves, *biases]
        found = torch.autograd.grad(value, every, allow_unused=True)
    parts = [
        float((one.detach().double() * grad.double()).sum())
        for one, grad in zip(every, found, strict=True)
        if grad is not None
    ]
    return sum(parts) / float(value.detach())
