"""The FFN activations of a loaded vLLM model, and the counting modules put in their place.

They are exchanged after the weights are loaded and before the first pass, so that eager and
compiled passes both meet them: what is exchanged or hooked later, a compiled graph never calls.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from sparcom.components import ComponentSpace, Shard, ShardSite, Site
from sparcom.engines.vllm.counting_op import CountedActivation
from sparcom.errors import InputError

_ACT_NAMES = ("act_fn", "act", "activation_fn", "activation", "gelu_impl")
# Modules whose input is gate and up side by side, and their f.
_PAIRED = {"SiluAndMul": "silu"}
_SINGLE = {
    "SiLU": "silu", "SiLUActivation": "silu", "ReLU": "relu", "NewGELU": "gelu_tanh",
    "NewGELUActivation": "gelu_tanh", "FastGELU": "gelu_tanh", "FastGELUActivation": "gelu_tanh",
    "GELUTanh": "gelu_tanh", "PytorchGELUTanh": "gelu_tanh", "GELUActivation": "gelu",
    "ReLUSquaredActivation": "relu2",
}  # fmt: skip


@dataclass(frozen=True)
class HeldSite:
    """A site as one worker holds it.

    site: the whole site; units: [start, stop) of its neurons that this worker holds.
    """

    site: Site
    units: tuple[int, int]

    @property
    def local(self) -> Site:
        """The site as this worker counts it."""
        return Site(**{**asdict(self.site), "width": self.units[1] - self.units[0]})

    def to_json(self) -> dict[str, Any]:
        return {"site": asdict(self.site), "units": list(self.units)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "HeldSite":
        return cls(Site(**data["site"]), (data["units"][0], data["units"][1]))


def instrument(model: nn.Module, signal: str) -> list[HeldSite]:
    """Exchange every FFN activation of a model for a counting one; returns the sites, in order.

    Raises InputError naming the module where the model is not one that can be counted.
    """
    from vllm.model_executor.layers.linear import RowParallelLinear

    found: list[HeldSite] = []
    for name, parent in model.named_modules():
        _refuse_experts(name, parent)
        children = dict(parent.named_children())
        act = next((n for n in _ACT_NAMES if n in children), None)
        downs = [c for c in children.values() if isinstance(c, RowParallelLinear)]
        if act is None or len(downs) != 1:
            continue
        f, paired = _function(f"{name}.{act}", children[act])
        down, gated = downs[0], paired or "up_proj" in children
        if gated and not paired and signal == "product":
            raise InputError(
                f"signal product: {name} multiplies gate and up outside its activation"
            )
        start = down.tp_rank * down.input_size_per_partition
        site = Site("dense", layer_of(name), down.input_size, f, gated=gated)
        setattr(parent, act, CountedActivation(len(found), paired))
        found.append(HeldSite(site, (start, start + down.input_size_per_partition)))
    _demand_every_layer(model, found)
    return found


def layer_of(name: str) -> int:
    """`model.layers.3.mlp` -> 3; raises InputError where the name does not say one layer."""
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    if len(numbers) != 1:
        raise InputError(f"{name}: this module's name does not say its layer")
    return numbers[0]


def _function(name: str, module: nn.Module) -> tuple[str, bool]:
    """(name of f, whether the input is gate and up side by side)."""
    kind = type(module).__name__
    if kind in _PAIRED:
        return _PAIRED[kind], True
    if kind in ("GeluAndMul", "GELU"):
        exact = getattr(module, "approximate", "none") == "none"
        return "gelu" if exact else "gelu_tanh", kind == "GeluAndMul"
    if kind in _SINGLE:
        return _SINGLE[kind], False
    known = sorted([*_PAIRED, *_SINGLE, "GeluAndMul", "GELU"])
    raise InputError(
        f"{name}: activation module {kind} is not supported; supported are {', '.join(known)}"
    )


def _refuse_experts(name: str, module: nn.Module) -> None:
    if "MoE" in type(module).__name__ or any(
        p.dim() == 3 for p in module.parameters(recurse=False)
    ):
        raise InputError(
            f"{name or 'model'} ({type(module).__name__}): routed experts are not supported by the "
            "vllm engine"
        )


def _demand_every_layer(model: nn.Module, found: Sequence[HeldSite]) -> None:
    """Every decoder layer with weights must have a site: nothing is counted silently."""
    layers = set()
    for name, _ in model.named_parameters():
        numbers = [int(part) for part in name.split(".") if part.isdigit()]
        layers.update(numbers[:1])
    missing = sorted(layers - {held.site.layer for held in found})
    if missing or not found:
        where = f"layer {missing[0]}" if missing else "any layer"
        raise InputError(
            f"model {type(model).__name__}: no FFN activation module found in {where}; its MLP is "
            "fused or unknown, so that nothing could be counted there"
        )


def assemble(workers: Sequence[Sequence[HeldSite]]) -> tuple[ComponentSpace, list[Shard]]:
    """The whole space, and each worker's shard of it, from what all workers hold."""
    sites = {held.site.name: held.site for worker in workers for held in worker}
    order = sorted(sites.values(), key=lambda site: site.layer)
    space = ComponentSpace(tuple(order))
    at = {site.name: i for i, site in enumerate(order)}
    shards = [
        Shard(space, tuple(ShardSite(at[held.site.name], held.units) for held in worker))
        for worker in workers
    ]
    return space, shards
