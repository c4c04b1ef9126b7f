"""Routed experts in vLLM: implementations of our own that count, chosen before weights are loaded.

vLLM's own implementation on CPU is one C++ call that hides the activations, and it repacks its
weights for that call as soon as they are loaded; so ours must be in place before. On CUDA vLLM's
Triton implementation is kept: it calls its activation between two products, and there we count.
The names of vLLM's modules here are those of 0.32.0.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from vllm.model_executor.layers.fused_moe import unquantized_fused_moe_method as method
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig
from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
from vllm.model_executor.layers.fused_moe.oracle.unquantized import UnquantizedMoeBackend
from vllm.model_executor.layers.fused_moe.runner.moe_runner import MoERunner
from vllm.platforms import current_platform

from sparcom.components import LocalSite, Site
from sparcom.counting.activations import name_activation
from sparcom.engines.experts.grouped import GroupedExperts, Workspace, can_pack, pack
from sparcom.engines.experts.tiles import Sizes, agreeing_sizes
from sparcom.engines.vllm.worker import counting_op
from sparcom.errors import InputError

_PLAIN = {
    MoEActivation.SILU: "silu",
    MoEActivation.GELU: "gelu",
    MoEActivation.GELU_TANH: "gelu_tanh",
    MoEActivation.RELU2: "relu2",
    MoEActivation.SILU_NO_MUL: "silu",
    MoEActivation.GELU_NO_MUL: "gelu",
    MoEActivation.GELU_TANH_NO_MUL: "gelu_tanh",
    MoEActivation.RELU2_NO_MUL: "relu2",
}
_COUNTED = {
    *_PLAIN, MoEActivation.SWIGLUOAI, MoEActivation.SWIGLUOAI_UNINTERLEAVE,
    MoEActivation.SWIGLUSTEP, MoEActivation.SITU,
}  # fmt: skip
_STEP_LIMIT = 7.0  # vLLM's, whatever the config says
UNBOUND = -1


class CountedExperts(CPUUnquantizedExperts):
    """Experts on CPU whose products and counts are `GroupedExperts`'.

    sparcom_site: index of the worker's site, once it is known.
    sparcom_packed: True once the weights lie as AMX reads them.
    """

    sparcom_site = UNBOUND
    sparcom_packed = False

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        """Lay the weights out as their products read them."""
        weights: tuple[Any, Any] = layer.w13_weight, layer.w2_weight
        self.sparcom_packed = can_pack(*weights)
        for weight in weights if self.sparcom_packed else ():
            weight.data = pack(weight.data)

    def apply(
        self, output: Tensor, hidden_states: Tensor, w1: Tensor, w2: Tensor, topk_weights: Tensor,
        topk_ids: Tensor, *others: Any, apply_router_weight_on_input: bool = False, **more: Any,
    ) -> None:  # fmt: skip
        if apply_router_weight_on_input:  # Llama 4: vLLM has weighed hidden_states by now
            topk_weights = torch.ones_like(topk_weights)
        torch.ops.sparcom.count_experts(
            output, hidden_states, topk_weights, topk_ids, self.sparcom_site
        )


class TokenOrder:
    """Counts in `activation`, whose rows lie in the order of tokens: row t * top_k + k.

    For implementations that call `activation` between their products; it gets no ids, so `apply`
    keeps the ones that it gets. Rows of other workers' experts may hold anything.
    """

    sparcom_site = UNBOUND
    _routing: tuple[Tensor, Tensor | None]

    def apply(
        self, output: Tensor, hidden_states: Tensor, w1: Tensor, w2: Tensor, topk_weights: Tensor,
        topk_ids: Tensor, *others: Any, expert_map: Tensor | None, **more: Any,
    ) -> None:  # fmt: skip
        self._routing = topk_ids, expert_map
        super().apply(  # type: ignore[misc]  # of vLLM's class that this is mixed into
            output, hidden_states, w1, w2, topk_weights, topk_ids, *others,
            expert_map=expert_map, **more,
        )  # fmt: skip

    def activation(
        self, activation: MoEActivation, output: Tensor, input: Tensor, **more: Any
    ) -> None:
        """output [tokens * top_k, width] = f(gate) * up of input [tokens * top_k, 2 width]."""
        ids, expert_map = self._routing
        torch.ops.sparcom.count_token_order(output, input, ids, expert_map, self.sparcom_site)


class Bank:
    """The routed experts of one layer in this worker.

    runner: vLLM's module, called `name`; layer: its decoder layer.
    local: the worker's part of the site, its experts in the order of its weights.
    site_index: of the worker's sites, set once they are all known.
    Raises InputError if they cannot be counted.
    """

    site_index: int
    _shift: Tensor

    def __init__(self, name: str, runner: MoERunner, layer: int) -> None:
        _refuse(name, runner)
        self.name, self._router = name, runner.router
        self._layer, config = runner.routed_experts, runner.moe_config
        self.turns = config.activation is MoEActivation.SWIGLUOAI
        width, parallel = config.intermediate_size_per_partition, config.moe_parallel_config
        site = Site(
            "routed",
            layer,
            width * parallel.tp_size,
            _activation(config),
            gated=config.is_act_and_mul,
            experts=config.num_logical_experts,
            top_k=config.experts_per_token,
        )
        experts: Iterable[int] = range(site.experts)
        if (place := self._layer.expert_map) is not None:
            at = place.tolist()
            experts = sorted((e for e in experts if at[e] >= 0), key=at.__getitem__)
        units = parallel.tp_rank * width, (parallel.tp_rank + 1) * width
        self.local = LocalSite(site, units, tuple(experts))

    @property
    def guided(self) -> bool:
        """True if the router chooses by more than the logits: by a bias, groups, or a table."""
        router: Any = self._router
        groups = getattr(router, "num_expert_group", None) is not None
        return (
            getattr(router, "e_score_correction_bias", None) is not None
            or getattr(router, "_hash_indices_table", None) is not None
            or bool(getattr(router, "use_grouped_topk", groups))
        )

    def open_router(self, device: torch.device) -> None:
        """Let the router read, in every later pass, what is added to its logits: at first 0.

        The experts of a layer are one opaque operator of vLLM's graphs, in which this runs.
        """
        self._shift = torch.zeros(self.local.site.experts, device=device)
        select = self._router.select_experts

        def shifted(*, router_logits: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
            added = router_logits + self._shift.to(router_logits.dtype)
            return select(router_logits=added, **more)

        self._router.select_experts = shifted

    def shift_logits(self, experts: np.ndarray, shift: float) -> None:
        """Add `shift` to the logits of these experts of the site, and of no others."""
        self._shift.zero_()
        self._shift[torch.from_numpy(experts).to(self._shift.device)] = shift

    @property
    def implementation(self) -> "CountedExperts | TokenOrder":
        """What computes and counts these experts."""
        return self._layer.quant_method.moe_kernel.fused_experts

    @property
    def weights(self) -> tuple[Tensor, Tensor]:
        """gate and up side by side [experts, 2 width, hidden], down [experts, hidden, width]."""
        return self._layer.w13_weight, self._layer.w2_weight

    @property
    def biases(self) -> tuple[Tensor, ...]:
        """Those of gate and up [experts, 2 width] and of down [experts, hidden]; () if none."""
        if not hasattr(self._layer, "w13_bias"):
            return ()
        return self._layer.w13_bias, self._layer.w2_bias


def bind_experts(banks: Sequence[Bank], counter: counting_op.StepCounter, rows: int) -> None:
    """Count the experts into this counter from now on. rows: of the largest pass."""
    workspace = Workspace()
    sizes: dict[tuple, Sizes] = {}
    for bank in banks:
        at = bank.implementation.sparcom_site = bank.site_index
        if bank.turns:
            counter.turns.add(at)
        if not isinstance(bank.implementation, CountedExperts):
            if counter.recorder.magnitudes:
                raise InputError(
                    f"magnitudes: {bank.name}: these experts do not show their outputs; use the "
                    "transformers engine"
                )
            continue
        site, weights, fit = bank.local.site, bank.weights, None
        if not bank.implementation.sparcom_packed:
            weights = weights[0].transpose(1, 2), weights[1].transpose(1, 2)
            key = tuple((w.shape, w.dtype) for w in weights)
            if key not in sizes:
                sizes[key] = agreeing_sizes(weights, rows * site.top_k // site.experts)
            fit = sizes[key]
        some = bank.local.experts if bank.local.partial else ()
        counter.experts[at] = GroupedExperts(
            *weights, site, at, counter.recorder, workspace, fit, bank.name, some,
            biases=bank.biases, turns=bank.turns,
        )  # fmt: skip


@contextmanager
def counted_experts() -> Iterator[None]:
    """Within the block, the experts that vLLM makes of weights in full precision are ours.

    On CPU, ours need no gate, which vLLM's do: it refuses a config without one as it is made.
    """
    if not hasattr(method, "select_unquantized_moe_backend"):
        raise InputError(
            "vllm: fused_moe.unquantized_fused_moe_method.select_unquantized_moe_backend, which "
            "counting hooks into, is gone; install the tested version"
        )
    select, check = method.select_unquantized_moe_backend, FusedMoEConfig.__post_init__
    method.select_unquantized_moe_backend = lambda moe_config: implementation()
    if current_platform.is_cpu():
        FusedMoEConfig.__post_init__ = _permitting_no_gate(check)
    try:
        yield
    finally:
        method.select_unquantized_moe_backend = select
        FusedMoEConfig.__post_init__ = check


def _permitting_no_gate(check: Any) -> Any:
    """`FusedMoEConfig.__post_init__`, whose last check is that experts on CPU have a gate."""

    def permitting(config: FusedMoEConfig) -> None:
        try:
            check(config)
        except NotImplementedError as error:  # vLLM has no kernel for them; ours counts them
            if config.is_act_and_mul or "is_act_and_mul" not in str(error):
                raise  # its other refusals stay

    return permitting


def implementation() -> tuple[UnquantizedMoeBackend, type]:
    """The backend of this platform, and the counting class that runs as it."""
    if current_platform.is_cpu():
        return UnquantizedMoeBackend.CPU, CountedExperts
    from vllm.model_executor.layers.fused_moe.experts.triton_moe import TritonExperts

    return UnquantizedMoeBackend.TRITON, type(
        "CountedTritonExperts", (TokenOrder, TritonExperts), {}
    )


def _activation(config: FusedMoEConfig) -> str:
    """The activation of experts, with its parameters."""
    kind, limit = config.activation, config.swiglu_limit
    if kind is MoEActivation.SWIGLUOAI:
        return name_activation("swiglu", limit=7.0, alpha=1.702, beta=1.0)
    if kind is MoEActivation.SWIGLUSTEP:
        return name_activation("swiglu_step", limit=_STEP_LIMIT)
    if kind is MoEActivation.SITU:
        linear = config.activation_situ_linear_beta or 0.0
        return name_activation("situ", beta=config.activation_situ_beta, linear_beta=linear)
    if kind is MoEActivation.SWIGLUOAI_UNINTERLEAVE or (
        kind is MoEActivation.SILU and limit is not None
    ):
        alpha = 1.0 if config.swiglu_alpha is None else config.swiglu_alpha
        return name_activation("swiglu", limit=limit, alpha=alpha, beta=config.swiglu_beta or 0.0)
    return _PLAIN[kind]


def _refuse(name: str, runner: MoERunner) -> None:
    """Raise InputError if experts are not f(gate) * u(up) in full precision, or if their rows
    are not those of this worker's pass."""
    config, parallel = runner.moe_config, runner.moe_config.moe_parallel_config
    kernel = getattr(runner.routed_experts.quant_method, "moe_kernel", None)
    ours = isinstance(getattr(kernel, "fused_experts", None), CountedExperts | TokenOrder)
    for what, found in (
        ("sequence-parallel experts", parallel.is_sequence_parallel),
        ("all-to-all between data-parallel ranks", parallel.use_all2all_kernels),
        ("expert load balancing (EPLB)", parallel.enable_eplb),
        ("LoRA on experts", config.is_lora_enabled),
        (f"activation {config.activation.value}", config.activation not in _COUNTED),
        ("shared experts inside the routed ones", config.num_experts != config.num_logical_experts),
        ("experts that vLLM quantises or runs by an implementation of its own", not ours),
    ):
        if found:
            raise InputError(f"{name} ({type(runner).__name__}): {what} cannot be counted")
