"""Routed experts as two grouped matrix products with counting between them, for every engine.

    y[t] = sum over k of weight[t, k] * down[e](f(gate[e](x[t])) * up[e](x[t])),  e = ids[t, k]

gate, up and down may have biases.

The ids come with the call, so they are those that the model follows. Each call checks them: every
id is an expert, and no token has an expert twice.

Rows are ordered by expert. On a CPU with AMX, a kernel of our own multiplies bf16, for any number
of rows of each expert. On other CPUs torch multiplies, and `tiles` lays the rows out. On a GPU the
products are torch's grouped ones.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sparcom import native
from sparcom.components import Site
from sparcom.counting.activations import parse_activation
from sparcom.counting.ops import DTYPES, SIGNALS
from sparcom.counting.recorder import Recorder
from sparcom.engines.experts.tiles import Sizes, Tiles, plan_tiles
from sparcom.errors import CountError, InputError

_CACHED_BYTES = 3 << 19  # of an expert's weights that a second-level cache of 2 MB can hold


class Workspace:
    """Memory for the rows of one call, which the next call reuses: fresh pages cost as much as the
    activation itself. All layers of an engine share one workspace."""

    def __init__(self) -> None:
        self._flat: dict[str, Tensor] = {}

    def take(self, name: str, rows: int, width: int, like: Tensor) -> Tensor:
        """[rows, width] in the dtype and on the device of `like`, not cleared. Each name must
        always have the same dtype."""
        flat = self._flat.get(name)
        if flat is None or flat.numel() < rows * width:
            flat = self._flat[name] = like.new_zeros(rows * width)
        return flat[: rows * width].view(rows, width)


class GroupedExperts:
    """The experts of one layer that this worker has, counted into a recorder.

    gate_up: [local, hidden, 2 width], gate and up side by side; ungated: [local, hidden, width].
    down: [local, width, hidden]. Both with any strides; if `sizes` is None, as `pack` returns them.
    site: the whole site. site_index: that of the local part among the recorder's sites.
    sizes: numbers of rows for torch's products on CPU (`tiles`); None: the weights are packed.
    name: the module's, for messages.
    local: ids of the experts in gate_up and down, in their order; (): all experts of the site.
    biases: of gate_up [local, 2 width] and of down [local, hidden]; (): none.
    turns: gate and up take turns in gate_up, instead of lying side by side.
    """

    def __init__(
        self, gate_up: Tensor, down: Tensor, site: Site, site_index: int,
        recorder: Recorder, workspace: Workspace, sizes: Sizes | None, name: str,
        local: Sequence[int] = (), biases: tuple[Tensor, ...] = (), turns: bool = False,
    ) -> None:  # fmt: skip
        self.gate_up, self.down = gate_up.detach(), down.detach()
        self.site, self.site_index, self.recorder = site, site_index, recorder
        self.workspace, self.name = workspace, name
        self.biases, self.turns = biases, turns
        self.width = recorder.sites[site_index].width  # of each local expert
        if recorder.magnitudes and self.width < site.width:
            raise InputError(
                f"magnitudes: this worker has {self.width} of the {site.width} units of each "
                f"expert of {name}, and a part of its output; use --expert-parallel"
            )
        self._local: np.ndarray | None = None  # [experts] index among the local ones, or -1
        if local:
            self._local = np.full(site.experts, -1, np.int64)
            self._local[list(local)] = np.arange(len(local))
        # hidden and ids -> (y [rows, hidden size], row [tokens, top_k] of y for each id, or -1)
        self.run: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = self._packed
        if down.device.type != "cpu":
            self.run = self._grouped
        elif sizes is not None:
            self.run = partial(self._tiled, sizes)

    def __call__(
        self,
        hidden: Tensor,
        ids: Tensor,
        weights: Tensor,
        out: Tensor | None = None,
    ) -> Tensor:
        """The sum of what the local experts return for hidden [tokens, hidden size], in its shape.

        ids: [tokens, top_k] experts of each token, of the whole site; weights: [tokens, top_k].
        out: [tokens, hidden size] to write to; None: a new tensor.
        Raises CountError if a token does not have `top_k` different experts.
        """
        self.recorder.check_rows(self.site_index, len(hidden))
        y, row = self.run(hidden, ids)
        if self.recorder.magnitudes:
            experts = torch.as_tensor(self._local_ids(ids), device=ids.device)
            self.recorder.add_outputs(self.site_index, y, row, weights, experts)
        return weighted_sum(y, row, weights, out)

    def _local_ids(self, ids: Tensor) -> np.ndarray:
        """[tokens, top_k] index of each expert among the local ones, or -1."""
        at: np.ndarray = ids.cpu().numpy()
        return at if self._local is None else self._local[at]

    def _packed(self, hidden: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """By kernels of our own, for packed weights."""
        routed = route(ids, self._local, self.site, len(self.down), self.recorder.slots_of_rows)
        if routed is None:
            check_routing(ids, self.site, self.name)
            raise AssertionError(f"{self.name}: route() refused ids that check_routing() accepts")
        token, row, begin, bins = routed
        take, rows, width = self.workspace.take, len(token), self.width
        y = take("y", rows, hidden.shape[1], hidden)
        small = self.gate_up[0].nbytes + self.down[0].nbytes <= _CACHED_BYTES
        plain = small and not self.biases and not self.turns
        if plain and (buffers := self.recorder.buffers_of(self.site_index)):
            routed_experts(
                hidden, token, begin, self.gate_up, self.down, y, bins, *buffers,
                self.site.activation, self.recorder.signal, self.recorder.threshold,
            )  # fmt: skip
            return y, row
        x = take("x", rows, hidden.shape[1], hidden)
        torch.index_select(hidden, 0, token, out=x)
        gate_up = take("gate_up", rows, width * (1 + self.site.gated), hidden)
        grouped_product(x, self.gate_up, begin, gate_up)
        of_row = np.repeat(np.arange(len(self.down), dtype=np.int32), np.diff(begin))
        expert = torch.from_numpy(of_row)
        h = take("h", rows, width, hidden)
        h = self._activate(gate_up, token, expert, h)
        grouped_product(h, self.down, begin, y)
        return self._biased(y, expert, 1), row

    def _tiled(self, sizes: Sizes, hidden: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """By torch's products, on CPU, of rows laid out in tiles."""
        check_routing(ids, self.site, self.name)
        tiles = plan_tiles(self._local_ids(ids), len(self.down), sizes)
        token, row = torch.from_numpy(tiles.token), torch.from_numpy(tiles.row)
        take, rows = self.workspace.take, len(token)
        x = take("x", rows, hidden.shape[1], hidden)
        torch.index_select(hidden, 0, token.clamp(min=0), out=x)
        gate_up = take("gate_up", rows, self.gate_up.shape[2], hidden)
        _tiled_product(tiles, x, self.gate_up, gate_up)
        expert = torch.from_numpy(tiles.expert)
        h = take("h", rows, self.width, hidden)
        self._activate(gate_up, token, expert, h)
        y = take("y", rows, self.down.shape[2], hidden)
        _tiled_product(tiles, h, self.down, y)
        return self._biased(y, expert, 1), row.view(ids.shape)

    def _grouped(self, hidden: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """By torch's grouped products, on a GPU."""
        check_routing(ids, self.site, self.name)
        expert, order = torch.sort(ids.reshape(-1), stable=True)
        token = order // ids.shape[1]
        ends = torch.bincount(expert, minlength=self.site.experts).cumsum(0).to(torch.int32)
        gate_up = F.grouped_mm(hidden[token], self.gate_up, offs=ends)
        h = self._activate(gate_up, token, expert.to(torch.int32))
        y = self._biased(F.grouped_mm(h, self.down, offs=ends), expert, 1)
        row = torch.empty_like(order)
        row[order] = torch.arange(len(order), device=order.device)
        return y, row.view(ids.shape)

    def _activate(
        self, gate_up: Tensor, token: Tensor, expert: Tensor, out: Tensor | None = None
    ) -> Tensor:
        gate_up = self._biased(gate_up, expert, 0)
        if not self.site.gated:
            gate, up = gate_up, None
        elif self.turns:
            gate, up = gate_up[:, ::2], gate_up[:, 1::2]
        else:
            gate, up = gate_up.chunk(2, dim=-1)
        return self.recorder.count_routed(self.site_index, gate, up, token, expert, out)

    def _biased(self, y: Tensor, expert: Tensor, which: int) -> Tensor:
        """y += the bias of each row's expert; rows of no expert may hold anything."""
        return y.add_(self.biases[which][expert.long().clamp(min=0)]) if self.biases else y


def _tiled_product(tiles: Tiles, x: Tensor, weight: Tensor, out: Tensor) -> None:
    """out[r] = x[r] @ weight[expert of r]."""

    def product(first: int, experts: int, start: int, size: int) -> None:
        rows = slice(start, start + experts * size)
        x_block, out_block = (v[rows].view(experts, size, -1) for v in (x, out))
        torch.bmm(x_block, weight[first : first + experts], out=out_block)

    if tiles.block:
        product(0, len(weight), 0, tiles.block)
    for tail in tiles.tails:
        product(tail.first, tail.experts, tail.start, tail.size)


def route(
    ids: Tensor, local: np.ndarray | None, site: Site, experts: int, slots: Tensor
) -> tuple[Tensor, Tensor, np.ndarray, Tensor] | None:
    """The rows of routed tokens, by expert and by token within one; None if the routing is wrong
    (`check_routing` says how).

    ids: [tokens, top_k] on CPU, experts of the whole site.
    local: [site.experts] int64, index of each expert among the local ones, or -1; None: all are.
    experts: how many are local.
    slots: [tokens] int32.

    Returns token [rows] int64; row [tokens, top_k] int64, the row of each id, or -1; begin [experts
    + 1] int64, the first row of each expert; bins [rows] int32, slot * experts + expert, or -1.
    """
    if ids.dim() != 2 or ids.shape[1] != site.top_k:
        return None
    ids, slots = ids.long().contiguous(), slots.contiguous()
    token, row = torch.empty(ids.numel(), dtype=torch.int64), torch.empty_like(ids)
    begin, bins = np.empty(experts + 1, np.int64), torch.empty(ids.numel(), dtype=torch.int32)
    fits = native.cpu().route(
        ids.data_ptr(), 0 if local is None else local.ctypes.data, slots.data_ptr(), *ids.shape,
        site.experts, experts, token.data_ptr(), row.data_ptr(), begin.ctypes.data, bins.data_ptr(),
    )  # fmt: skip
    return (token[: begin[-1]], row, begin, bins[: begin[-1]]) if fits else None


def can_pack(*weights: Tensor) -> bool:
    """True if `grouped_product` can run here on weights [experts, outputs, inputs]."""
    fit = all(w.shape[1] % 32 == w.shape[2] % 32 == 0 for w in weights)
    kinds = {(w.dtype, w.device.type) for w in weights}
    return fit and kinds == {(torch.bfloat16, "cpu")} and native.cpu().has_amx()


def pack(weight: Tensor) -> Tensor:
    """A weight [experts, outputs, inputs] in the order in which AMX reads it; the shape stays.

    Each expert becomes tiles of 32 inputs by 16 outputs; a tile is 16 rows of 16 pairs of inputs.
    """
    experts, outputs, inputs = weight.shape
    tiles = weight.reshape(experts, outputs // 16, 16, inputs // 32, 16, 2)
    return tiles.permute(0, 1, 3, 4, 2, 5).reshape(weight.shape)


def grouped_product(x: Tensor, weight: Tensor, begin: np.ndarray, out: Tensor) -> None:
    """out[r] = x[r] @ weight[e].T for the rows begin[e] <= r < begin[e + 1] of each expert e.

    x: [rows, inputs] and out: [rows, outputs], C-contiguous bf16 on CPU; weight: as `pack` returns
    it; begin: [experts + 1] int64. The result of a row does not depend on other rows.
    """
    native.cpu().grouped_product(
        x.data_ptr(), weight.data_ptr(), out.data_ptr(), begin.ctypes.data, *weight.shape[::2],
        weight.shape[1],
    )  # fmt: skip


def routed_experts(
    x: Tensor, token: Tensor, begin: np.ndarray, gate_up: Tensor,
    down: Tensor, y: Tensor, bins: Tensor, counts: Tensor,
    rows: Tensor, signs: Tensor | None, activation: str, signal: str, threshold: float,
) -> None:  # fmt: skip
    """Both products of routed experts in one pass, counted between them.

        y[r] = down[e](h),  h = f(gate) * up,  (gate, up) = gate_up[e](x[token[r]])
        for begin[e] <= r < begin[e + 1]; h is counted as in `act_mul_count`

    Equal, bit for bit, to two `grouped_product`s of the gathered rows with an `act_mul_count`
    between them.

    x: [tokens, hidden] bf16 on CPU.
    token: [rows] int64; begin: [experts + 1] int64.
    gate_up, down: [experts, outputs, hidden] and [experts, hidden, width], packed.
    y: [rows, hidden] bf16, written.
    bins: [rows] int32; counts: [bins, width] and rows: [bins] int32, added to; signs: [2, bins,
        width] int32, added to, or None.

    Raises ValueError, before anything is written, if a token or a bin is out of range.
    """
    x, token, bins = x.contiguous(), token.contiguous(), bins.contiguous()
    native.cpu().routed_experts(
        x.data_ptr(), token.data_ptr(), begin.ctypes.data, gate_up.data_ptr(), down.data_ptr(),
        y.data_ptr(), len(x), len(gate_up), x.shape[1], gate_up.shape[1], down.shape[2],
        bins.data_ptr(), counts.data_ptr(), rows.data_ptr(),
        0 if signs is None else signs.data_ptr(), len(rows),
        *parse_activation(activation).numbers, SIGNALS[signal], threshold,
    )  # fmt: skip


def weighted_sum(y: Tensor, row: Tensor, weights: Tensor, out: Tensor | None = None) -> Tensor:
    """out[t] = sum over k of round(weights[t, k] * y[row[t, k]]), added up in fp32.

    Products are rounded to the wider of the two dtypes, as in transformers' own implementations.
    Otherwise some tokens would choose other experts in the next layer.

    y: [rows, hidden].
    row: [tokens, top_k] int64; on CPU, -1 adds nothing.
    weights: [tokens, top_k].
    out: [tokens, hidden] in the dtype of y, to write to; None: a new tensor.
    """
    if y.device.type != "cpu":
        total = (y[row] * weights[:, :, None]).sum(1, dtype=torch.float32)
        return total.to(y.dtype) if out is None else out.copy_(total)
    y, row, wide = y.contiguous(), row.contiguous(), weights.float().contiguous()
    direct = out is not None and out.is_contiguous()
    target = out if out is not None and direct else y.new_empty(len(row), y.shape[1])
    native.cpu().weighted_sum(
        y.data_ptr(), row.data_ptr(), wide.data_ptr(), target.data_ptr(),
        *row.shape, *y.shape, DTYPES[y.dtype], weights.dtype == y.dtype != torch.float32,
    )  # fmt: skip
    return target if out is None or direct else out.copy_(target)


def check_routing(ids: Tensor, site: Site, name: str) -> None:
    """Raise CountError if ids [tokens, top_k] are not `top_k` different experts for each token."""
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
