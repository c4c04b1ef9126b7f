"""Routed experts as grouped matrix products, counted between the two, for every engine.

    y[t] = sum over k of weight[t, k] * down[e](f(gate[e](x[t])) * up[e](x[t])),  e = ids[t, k]

The ids come with the call, so they are the ones that the model obeys, and each call checks them:
every id an expert, no token twice in one expert.

Rows lie in the order of experts. On a CPU with AMX the products of bf16 are a kernel of our own,
which takes as many rows of each expert as there are; elsewhere they are torch's, and the rows are
laid out by `tiles`.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from sparcom import native
from sparcom.components import Site
from sparcom.counting.ops import ACTIVATIONS, DTYPES, SIGNALS
from sparcom.counting.recorder import Recorder
from sparcom.engines.experts.tiles import Sizes, Tiles, plan_tiles
from sparcom.errors import CountError

_CACHED_BYTES = 3 << 19  # of an expert's weights: what a second-level cache of 2 MB keeps


class Workspace:
    """Memory for the rows of one call, used again by the next: fresh pages cost as much as the
    activation itself. All layers of an engine share one."""

    def __init__(self) -> None:
        self._flat: dict[str, torch.Tensor] = {}

    def take(self, name: str, rows: int, width: int, like: torch.Tensor) -> torch.Tensor:
        """[rows, width] in the dtype and on the device of `like`, with what was left in it. A name
        is always asked for in one dtype."""
        flat = self._flat.get(name)
        if flat is None or flat.numel() < rows * width:
            flat = self._flat[name] = like.new_zeros(rows * width)
        return flat[: rows * width].view(rows, width)


class GroupedExperts:
    """The experts of one layer, as many as this worker holds, counted into a recorder.

    first: [held, hidden, 2 width] gate and up side by side, or [held, hidden, width]; down: [held,
        width, hidden]; strided as they lie. Where `sizes` is None: both as `pack` returns them.
    site: the whole site; at: index of the held part among the recorder's sites.
    held: ids of the experts in `first` and `down`, in their order; () where it is all of them.
    name: the module's, for messages.
    """

    def __init__(
        self, first: torch.Tensor, down: torch.Tensor, site: Site, at: int, recorder: Recorder,
        workspace: Workspace, sizes: Sizes | None, name: str, held: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self.first, self.down, self.site, self.at = first.detach(), down.detach(), site, at
        self.recorder, self.workspace, self.sizes, self.name = recorder, workspace, sizes, name
        self.width = recorder.sites[at].width  # of each expert here
        self._here: np.ndarray | None = None
        if held:
            self._here = np.full(site.experts, -1, np.int64)
            self._here[list(held)] = np.arange(len(held))
        if down.device.type != "cpu":
            self.run = self._grouped
        else:
            self.run = self._packed if sizes is None else self._tiled

    def __call__(
        self,
        hidden: torch.Tensor,
        ids: torch.Tensor,
        weights: torch.Tensor,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What the held experts make of hidden [tokens, hidden size], in the same shape.

        ids: [tokens, top_k] experts of each token, of the whole site; weights: [tokens, top_k].
        out: written where it is given, else a new tensor is.
        Raises CountError where the routing is not one of `top_k` different experts a token.
        """
        self.recorder.check_rows(self.at, len(hidden))
        y, place = self.run(hidden, ids)
        return weighted_sum(y, place, weights, out)

    def _local(self, ids: torch.Tensor) -> np.ndarray:
        """[tokens, top_k] where each expert lies among the held ones, or -1."""
        return ids.numpy() if self._here is None else self._here[ids.numpy()]

    def _packed(self, hidden, ids) -> tuple[torch.Tensor, torch.Tensor]:
        """(y [rows, hidden size], place [tokens, top_k]): the row of y of each token and expert."""
        routed = route(ids, self._here, self.site, len(self.down), self.recorder.slots_of_rows)
        if routed is None:
            check_routing(ids, self.site, self.name)  # says what is wrong
        token, place, begin, bins = routed
        take, rows, width = self.workspace.take, len(token), self.width
        y = take("y", rows, hidden.shape[1], hidden)
        small = self.first[0].nbytes + self.down[0].nbytes <= _CACHED_BYTES
        if small and (buffers := self.recorder.buffers_of(self.at)):
            routed_experts(
                hidden, token, begin, self.first, self.down, y, bins, *buffers,
                self.site.activation, self.recorder.signal, self.recorder.threshold,
            )  # fmt: skip
            return y, place
        x = take("x", rows, hidden.shape[1], hidden)
        torch.index_select(hidden, 0, token, out=x)
        first = take("first", rows, width * (1 + self.site.gated), hidden)
        grouped_product(x, self.first, begin, first)
        expert = np.repeat(np.arange(len(self.down), dtype=np.int32), np.diff(begin))
        h = take("h", rows, width, hidden)
        h = self._activate(first, token, torch.from_numpy(expert), h)
        grouped_product(h, self.down, begin, y)
        return y, place

    def _tiled(self, hidden, ids) -> tuple[torch.Tensor, torch.Tensor]:
        """As `_packed`, with torch's products of rows laid out in tiles."""
        check_routing(ids, self.site, self.name)
        tiles = plan_tiles(self._local(ids), len(self.down), self.sizes)
        token, place = torch.from_numpy(tiles.token), torch.from_numpy(tiles.place)
        take, rows = self.workspace.take, len(token)
        x = take("x", rows, hidden.shape[1], hidden)
        torch.index_select(hidden, 0, token.clamp(min=0), out=x)
        first = take("first", rows, self.first.shape[2], hidden)
        self._product(tiles, x, self.first, first)
        h = take("h", rows, self.width, hidden)
        self._activate(first, token, torch.from_numpy(tiles.expert), h)
        y = take("y", rows, self.down.shape[2], hidden)
        self._product(tiles, h, self.down, y)
        return y, place.view(ids.shape)

    def _product(self, tiles: Tiles, x: torch.Tensor, weight: torch.Tensor, out) -> None:
        """out[r] = x[r] @ weight[expert of r]."""

        def product(first: int, experts: int, start: int, size: int) -> None:
            rows = slice(start, start + experts * size)
            blocks = (v[rows].view(experts, size, -1) for v in (x, out))
            torch.bmm(next(blocks), weight[first : first + experts], out=next(blocks))

        if tiles.block:
            product(0, len(weight), 0, tiles.block)
        for tail in tiles.tails:
            product(tail.first, self.sizes.tail_batch, tail.start, tail.size)

    def _grouped(self, hidden, ids) -> tuple[torch.Tensor, torch.Tensor]:
        """As `_packed`, with torch's own grouped products."""
        check_routing(ids, self.site, self.name)
        expert, order = torch.sort(ids.reshape(-1), stable=True)
        token = order // ids.shape[1]
        ends = torch.bincount(expert, minlength=self.site.experts).cumsum(0).to(torch.int32)
        first = F.grouped_mm(hidden[token], self.first, offs=ends)
        h = self._activate(first, token, expert.to(torch.int32))
        y = F.grouped_mm(h, self.down, offs=ends)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        return y, place.view(ids.shape)

    def _activate(self, first, token, expert, out=None) -> torch.Tensor:
        gate, up = first.chunk(2, dim=-1) if self.site.gated else (first, None)
        return self.recorder.count_routed(self.at, gate, up, token, expert, out)


def route(
    ids: torch.Tensor, here: np.ndarray | None, site: Site, held: int, slots: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, torch.Tensor] | None:
    """The rows of routed tokens, by expert and within one by token; None where the routing is wrong
    (`check_routing` says how).

    ids: [tokens, top_k] on CPU; here: [experts] where each lies among the `held` ones, or -1;
    slots: [tokens] int32. Returns token [rows] int64; place [tokens, top_k] int64, the row of each
    id, or -1; begin [held + 1] int64; bins [rows] int32, slot * held + expert or -1.
    """
    if ids.dim() != 2 or ids.shape[1] != site.top_k:
        return None
    ids, slots = ids.long().contiguous(), slots.contiguous()
    token, place = torch.empty(ids.numel(), dtype=torch.int64), torch.empty_like(ids)
    begin, bins = np.empty(held + 1, np.int64), torch.empty(ids.numel(), dtype=torch.int32)
    fits = native.cpu().route(
        ids.data_ptr(), 0 if here is None else here.ctypes.data, slots.data_ptr(), *ids.shape,
        site.experts, held, token.data_ptr(), place.data_ptr(), begin.ctypes.data, bins.data_ptr(),
    )  # fmt: skip
    return (token[: begin[-1]], place, begin, bins[: begin[-1]]) if fits else None


def can_pack(*weights: torch.Tensor) -> bool:
    """Whether `grouped_product` runs here on weights [experts, outputs, inputs]."""
    fit = all(w.shape[1] % 32 == w.shape[2] % 32 == 0 for w in weights)
    kinds = {(w.dtype, w.device.type) for w in weights}
    return fit and kinds == {(torch.bfloat16, "cpu")} and native.cpu().has_amx()


def pack(weight: torch.Tensor) -> torch.Tensor:
    """A weight [experts, outputs, inputs] as AMX reads it, in a tensor of the same shape.

    Each expert becomes tiles of 32 inputs by 16 outputs, and a tile 16 rows of 16 pairs of inputs.
    """
    experts, outputs, inputs = weight.shape
    tiles = weight.reshape(experts, outputs // 16, 16, inputs // 32, 16, 2)
    return tiles.permute(0, 1, 3, 4, 2, 5).reshape(weight.shape)


def grouped_product(
    x: torch.Tensor, weight: torch.Tensor, begin: np.ndarray, out: torch.Tensor
) -> None:
    """out[r] = x[r] @ weight[e].T for the rows begin[e] <= r < begin[e + 1] of each expert e.

    x: [rows, inputs] and out: [rows, outputs], C-contiguous bf16 on CPU; weight: `pack`'s;
    begin: [experts + 1] int64. A row's result does not depend on the other rows.
    """
    native.cpu().grouped_product(
        x.data_ptr(), weight.data_ptr(), out.data_ptr(), begin.ctypes.data, *weight.shape[::2],
        weight.shape[1],
    )  # fmt: skip


def routed_experts(
    x: torch.Tensor, token: torch.Tensor, begin: np.ndarray, first: torch.Tensor,
    down: torch.Tensor, y: torch.Tensor, bins: torch.Tensor, counts: torch.Tensor,
    rows: torch.Tensor, activation: str, signal: str, threshold: float,
) -> None:  # fmt: skip
    """y[r] = down[e](h), h = f(gate) * up, (gate, up) = first[e](x[token[r]]), begin[e] <= r <
    begin[e + 1]; h is counted as `act_mul_count` does.

    Equal, bit for bit, to the rows gathered, two `grouped_product`s and an `act_mul_count` between.
    x: [tokens, hidden] and y: [rows, hidden], bf16 on CPU; token: [rows] int64; begin: [experts +
    1] int64; first, down: packed; bins: [rows] int32; counts [bins, width], rows [bins]: added to.
    """
    x, token, bins = x.contiguous(), token.contiguous(), bins.contiguous()
    native.cpu().routed_experts(
        x.data_ptr(), token.data_ptr(), begin.ctypes.data, first.data_ptr(), down.data_ptr(),
        y.data_ptr(), len(x), len(first), x.shape[1], first.shape[1], down.shape[2],
        bins.data_ptr(), counts.data_ptr(), rows.data_ptr(), len(rows), ACTIVATIONS[activation],
        SIGNALS[signal], threshold,
    )  # fmt: skip


def weighted_sum(
    y: torch.Tensor, place: torch.Tensor, weights: torch.Tensor, out: torch.Tensor | None = None
) -> torch.Tensor:
    """out[t] = sum over k of round(weights[t, k] * y[place[t, k]]), added up in fp32.

    Products are rounded to the wider of the two dtypes, as transformers' own implementations do:
    were they not, some tokens of the next layer would choose other experts.
    y: [rows, hidden]; place [tokens, top_k] int64, -1 (on CPU) for nothing; weights: [tokens,
    top_k]; out: [tokens, hidden] in the dtype of y, written where it is given.
    """
    if y.device.type != "cpu":
        total = (y[place] * weights[:, :, None]).sum(1, dtype=torch.float32)
        return total.to(y.dtype) if out is None else out.copy_(total)
    y, place, wide = y.contiguous(), place.contiguous(), weights.float().contiguous()
    direct = out is not None and out.is_contiguous()
    target = out if direct else y.new_empty(len(place), y.shape[1])
    native.cpu().weighted_sum(
        y.data_ptr(), place.data_ptr(), wide.data_ptr(), target.data_ptr(),
        *place.shape, *y.shape, DTYPES[y.dtype], weights.dtype == y.dtype != torch.float32,
    )  # fmt: skip
    return target if out is None or direct else out.copy_(target)


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
