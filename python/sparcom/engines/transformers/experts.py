"""Routed experts of a transformers model: what they are, and how they run and are counted.

transformers keeps the experts of a layer as fused weights behind an interface of implementations.
Ours, `sparcom_counting`, is registered there. It does what the others do and counts on the way:

    y[t] = sum over k of weight[t, k] * down[e](f(gate[e](x[t])) * up[e](x[t])),  e = ids[t, k]

The ids come from the same call, so they are the ones that the model obeys, and each call checks
them: every id an expert, no token twice in one expert.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from sparcom.components import Site
from sparcom.counting.recorder import Recorder
from sparcom.engines.transformers.tiles import Sizes, Tiles, agreeing_sizes, plan_tiles
from sparcom.errors import CountError, InputError

NAME = "sparcom_counting"
_RUNNER = "_sparcom_runner"


def is_experts(module: nn.Module) -> bool:
    """Whether a module holds fused routed experts: parameters of three dimensions."""
    if isinstance(module, nn.Conv1d):
        return False
    return any(p.dim() == 3 for p in module.parameters(recurse=False))


def describe_experts(
    module: nn.Module, owner: nn.Module, layer: int, activation: str | None
) -> Site:
    """The site of a module of fused experts.

    owner: the module that holds it and its router.
    activation: name of the f of its activation module; None where that is not known.
    Raises InputError saying what is not supported.
    """
    shape = _weights_shape(module)
    if type(module)._apply_gate.__name__ != "_default_apply_gate":
        raise InputError("its gating is not f(gate) * up")
    if activation is None:
        what = type(getattr(module, "act_fn", None)).__name__
        raise InputError(f"activation {what}")
    if module.has_bias:
        raise InputError("its experts have biases")
    if not module.is_concatenated and module.has_gate:
        raise InputError("its gate and up projections are interleaved")
    experts, width = shape
    router = _router_of(owner)
    top_k = getattr(router, "top_k", None)
    known = getattr(router, "weight", None)
    if not isinstance(top_k, int) or known is None:
        raise InputError("no router with top_k and weight was found beside it")
    if known.shape[0] != experts:
        raise InputError(
            f"its router, {type(router).__name__}, knows {known.shape[0]} experts, but it holds "
            f"{experts}"
        )
    return Site("routed", layer, width, activation, module.has_gate, experts, top_k)


def _weights_shape(module: nn.Module) -> tuple[int, int]:
    """(experts, width) of a module of fused experts."""
    flags = ("has_gate", "has_bias", "is_transposed", "is_concatenated", "_apply_gate")
    if not all(hasattr(module, flag) for flag in flags):
        raise InputError("its experts do not use transformers' experts interface")
    down, first = getattr(module, "down_proj", None), _first_weight(module)
    if down is None or first is None or down.dim() != 3 or first.dim() != 3:
        raise InputError("no fused weights gate_up_proj (or up_proj) and down_proj in it")
    return down.shape[0], down.shape[1 if module.is_transposed else 2]


def _first_weight(module: nn.Module) -> torch.Tensor | None:
    return getattr(module, "gate_up_proj" if module.has_gate else "up_proj", None)


def _router_of(owner: nn.Module) -> nn.Module | None:
    return next((m for m in owner.children() if hasattr(m, "top_k")), None)


def probe_experts(module: nn.Module, site: Site, rows: int) -> tuple[torch.Tensor, ...]:
    """Arguments of a trial call: random rows, ids and weights."""
    generator = torch.Generator().manual_seed(0)
    down = module.down_proj
    inputs = _as_product(module, _first_weight(module)).shape[1]
    hidden = torch.randn(rows, inputs, generator=generator)
    ids = torch.rand(rows, site.experts, generator=generator).topk(site.top_k).indices
    weights = torch.rand(rows, site.top_k, generator=generator)
    return hidden.to(down), ids.to(down.device), weights.to(down)


def _as_product(module: nn.Module, weight: torch.Tensor) -> torch.Tensor:
    """[experts, inputs, outputs] of a fused weight."""
    return weight if module.is_transposed else weight.transpose(1, 2)


class Workspace:
    """Memory for the rows of one call, used again by the next: fresh pages cost as much as the
    activation itself. All layers of an engine share one."""

    def __init__(self) -> None:
        self._flat: dict[str, torch.Tensor] = {}

    def take(
        self, name: str, rows: int, width: int, like: torch.Tensor, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """[rows, width] in `dtype` (None: that of `like`) on the device of `like`, with what was
        left in it. A name is always asked for in one dtype."""
        flat = self._flat.get(name)
        if flat is None or flat.numel() < rows * width:
            flat = self._flat[name] = like.new_zeros(rows * width, dtype=dtype)
        return flat[: rows * width].view(rows, width)


class ExpertsRunner:
    """The experts of one layer, counted into a recorder.

    at: index of the site among the recorder's.
    name: the module's, for messages.
    """

    def __init__(
        self, module: nn.Module, name: str, at: int, recorder: Recorder, workspace: Workspace,
        sizes: Sizes,
    ) -> None:  # fmt: skip
        self.name, self.at, self.recorder, self.workspace = name, at, recorder, workspace
        self.site = recorder.sites[at]
        self.sizes = sizes
        self.first = _as_product(module, _first_weight(module)).detach()
        self.down = _as_product(module, module.down_proj).detach()
        self.run = self._tiled if self.down.device.type == "cpu" else self._grouped

    def __call__(
        self, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """[tokens, hidden size] of hidden [tokens, hidden size], ids and weights [tokens, top_k].

        Raises CountError where the routing is not one of `top_k` different experts a token.
        """
        self.recorder.check_rows(self.at, len(hidden))
        check_routing(ids, self.site, self.name)
        return self.run(hidden, ids, weights)

    def _tiled(self, hidden, ids, weights) -> torch.Tensor:
        tiles = plan_tiles(ids.numpy(), self.site.experts, self.sizes)
        token, place = torch.from_numpy(tiles.token), torch.from_numpy(tiles.place)
        take, rows = self.workspace.take, len(token)
        x = take("x", rows, hidden.shape[1], hidden)
        torch.index_select(hidden, 0, token.clamp(min=0), out=x)
        first = take("first", rows, self.first.shape[2], hidden)
        self._product(tiles, x, self.first, first)
        h = take("h", rows, self.site.width, hidden)
        self._activate(first, token, torch.from_numpy(tiles.expert), h)
        y = take("y", rows, self.down.shape[2], hidden)
        self._product(tiles, h, self.down, y)
        return self._combine(y, place.view(ids.shape), weights)

    def _product(self, tiles: Tiles, x: torch.Tensor, weight: torch.Tensor, out) -> None:
        """out[r] = x[r] @ weight[expert of r]."""

        def product(first: int, experts: int, start: int, size: int) -> None:
            rows = slice(start, start + experts * size)
            blocks = (v[rows].view(experts, size, -1) for v in (x, out))
            torch.bmm(next(blocks), weight[first : first + experts], out=next(blocks))

        product(0, len(weight), 0, tiles.block)
        for tail in tiles.tails:
            product(tail.first, self.sizes.tail_batch, tail.start, tail.size)

    def _grouped(self, hidden, ids, weights) -> torch.Tensor:
        """Without a layout of our own: rows in expert order, as many as there are."""
        expert, order = torch.sort(ids.reshape(-1), stable=True)
        token = order // ids.shape[1]
        ends = torch.bincount(expert, minlength=self.site.experts).cumsum(0).to(torch.int32)
        first = F.grouped_mm(hidden[token], self.first, offs=ends)
        h = self._activate(first, token, expert.to(torch.int32))
        y = F.grouped_mm(h, self.down, offs=ends)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        return self._combine(y, place.view(ids.shape), weights)

    def _combine(self, y, place, weights) -> torch.Tensor:
        if y.dtype == torch.float32:
            products = y
        else:
            products = self.workspace.take("products", *y.shape, y, torch.float32)
        return weighted_sum(y, place, weights, products).to(y.dtype)

    def _activate(self, first, token, expert, out=None) -> torch.Tensor:
        gate, up = first.chunk(2, dim=-1) if self.site.gated else (first, None)
        return self.recorder.count_routed(self.at, gate, up, token, expert, out)


def weighted_sum(
    y: torch.Tensor, place: torch.Tensor, weights: torch.Tensor, products: torch.Tensor
) -> torch.Tensor:
    """out[t] = sum over k of round(weights[t, k] * y[place[t, k]]), added up in fp32.

    Products are rounded to the wider of the two dtypes, as transformers' own implementations do:
    were they not, some tokens of the next layer would choose other experts.
    y: [rows, hidden]; place, weights: [tokens, top_k]; products: [rows, hidden] float32, written.
    Returns [tokens, hidden] float32.
    """
    of_row = weights.new_zeros(len(y))
    of_row[place.reshape(-1)] = weights.reshape(-1)
    if y.dtype == weights.dtype:
        y.mul_(of_row[:, None])
        products.copy_(y)
    else:
        torch.mul(y, of_row[:, None], out=products)
    return F.embedding_bag(place, products, mode="sum")


def check_routing(ids: torch.Tensor, site: Site, name: str) -> None:
    """Raise CountError where ids [tokens, top_k] are not `top_k` different experts a token."""
    where = f"{site.name} ({name})"
    if ids.dim() != 2 or ids.shape[1] != site.top_k:
        raise CountError(
            f"{where}: the router sends {list(ids.shape)} ids, expected [rows, {site.top_k}]"
        )
    values = ids.cpu().numpy()
    if values.size and not (values.min() >= 0 and values.max() < site.experts):
        row = int(((values < 0) | (values >= site.experts)).any(1).argmax())
        raise CountError(
            f"{where}: row {row} is routed to experts {values[row].tolist()}, but there are "
            f"{site.experts}"
        )
    ordered = np.sort(values, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]).any(1)
    if twice.any():
        row = int(twice.argmax())
        raise CountError(
            f"{where}: row {row} is routed twice to one expert: {values[row].tolist()}"
        )


def instrument_experts(
    modules: list[tuple[int, str, nn.Module]], recorder: Recorder, batch_tokens: int
) -> None:
    """Make experts modules run and count by our implementation.

    modules: (index of the site, name, module) each.
    batch_tokens: rows of a pass.
    """
    workspace = Workspace()
    sizes: dict[tuple, Sizes] = {}
    for at, name, module in modules:
        if module._is_expert_parallel:
            raise InputError(f"{name}: experts spread by transformers' own expert parallelism")
        site = recorder.sites[at]
        weights = [_as_product(module, w) for w in (_first_weight(module), module.down_proj)]
        key = tuple((w.shape, w.dtype) for w in weights)
        if key not in sizes:
            sizes[key] = agreeing_sizes(weights, batch_tokens * site.top_k // site.experts)
        runner = ExpertsRunner(module, name, at, recorder, workspace, sizes[key])
        setattr(module, _RUNNER, runner)
        module.config._experts_implementation = NAME


def _counting_experts(
    module: nn.Module, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """What transformers calls as the implementation `sparcom_counting`."""
    runner: Callable | None = getattr(module, _RUNNER, None)
    if runner is None:
        raise CountError(f"{type(module).__name__}: {NAME} was chosen, but nothing counts here")
    return runner(hidden, ids, weights)


ALL_EXPERTS_FUNCTIONS.register(NAME, _counting_experts)
