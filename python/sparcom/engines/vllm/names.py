"""What this engine uses of vLLM, by name, and whether a version of vLLM still has it.

vLLM has no stable interface for what counting needs, so a version that was not run with this engine
is read: its sources, without importing them, which need the device that they are built for.

    python -m sparcom.engines.vllm.names FOLDER    the folder `vllm` of an unpacked wheel
"""

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from sparcom.errors import InputError

_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
_MOE = "model_executor.layers.fused_moe"
USED: Mapping[str, Sequence[str]] = {
    "sampling_params": (
        "RequestOutputKind.FINAL_ONLY", "SamplingParams.max_tokens", "SamplingParams.temperature",
        "SamplingParams.seed", "SamplingParams.stop_token_ids", "SamplingParams.prompt_logprobs",
        "SamplingParams.detokenize", "SamplingParams.output_kind", "SamplingParams.extra_args",
    ),
    "engine.arg_utils": (
        "EngineArgs.model", "EngineArgs.dtype", "EngineArgs.trust_remote_code",
        "EngineArgs.max_model_len", "EngineArgs.max_num_batched_tokens", "EngineArgs.max_num_seqs",
        "EngineArgs.tensor_parallel_size", "EngineArgs.pipeline_parallel_size",
        "EngineArgs.enable_expert_parallel", "EngineArgs.distributed_executor_backend",
        "EngineArgs.enforce_eager", "EngineArgs.enable_prefix_caching", "EngineArgs.scheduler_cls",
        "EngineArgs.enable_chunked_prefill", "EngineArgs.async_scheduling",
        "EngineArgs.skip_tokenizer_init", "EngineArgs.disable_log_stats", "EngineArgs.worker_cls",
        "EngineArgs.language_model_only",
        "EngineArgs.additional_config", "EngineArgs.model_loader_extra_config",
        "EngineArgs.create_model_config",
        "EngineArgs.create_engine_config",
    ),
    "outputs": ("CompletionOutput.token_ids", "RequestOutput.finished", "RequestOutput.outputs",
                "RequestOutput.request_id", "RequestOutput.prompt_logprobs"),
    "config.cache": ("CacheConfig.kv_cache_memory_bytes",),
    "config.vllm": ("VllmConfig.additional_config", "VllmConfig.cache_config",
                    "VllmConfig.model_config", "VllmConfig.parallel_config",
                    "VllmConfig.scheduler_config", "VllmConfig.use_v2_model_runner"),
    "config.model": ("ModelConfig.get_head_size", "ModelConfig.get_num_kv_heads",
                     "ModelConfig.get_num_layers", "ModelConfig.get_vocab_size",
                     "ModelConfig.has_inner_state", "ModelConfig.is_hybrid",
                     "ModelConfig.is_multimodal_model"),
    "distributed.parallel_state": ("get_world_group", "GroupCoordinator.cpu_group",
                                   "GroupCoordinator.rank", "GroupCoordinator.ranks",
                                   "GroupCoordinator.world_size",
                                   "get_tensor_model_parallel_world_size"),
    "platforms.interface": ("Platform.device_type", "Platform.is_cpu"),
    "v1.engine.llm_engine": (
        "LLMEngine.from_vllm_config", "LLMEngine.add_request", "LLMEngine.abort_request",
        "LLMEngine.step", "LLMEngine.collective_rpc", "LLMEngine.engine_core",
        "LLMEngine.vllm_config",
    ),
    "v1.core.sched.scheduler": ("Scheduler.kv_cache_manager",),
    "v1.core.sched.async_scheduler": ("AsyncScheduler",),
    "config.scheduler": ("SchedulerConfig.async_scheduling", "SchedulerConfig.scheduler_cls",
                         "SchedulerConfig.max_num_batched_tokens"),
    "v1.core.sched.output": (
        "SchedulerOutput.scheduled_new_reqs", "SchedulerOutput.finished_req_ids",
        "NewRequestData.req_id", "NewRequestData.sampling_params",
    ),
    "v1.core.kv_cache_manager": ("KVCacheManager.get_computed_blocks",),
    "v1.request": ("Request.num_tokens", "Request.sampling_params"),
    "v1.worker.cpu_worker": ("CPUWorker",),
    "v1.worker.gpu_worker": (
        "Worker.use_v2_model_runner", "Worker.model_runner", "Worker.load_model",
        "Worker.determine_available_memory", "Worker.compile_or_warm_up_model",
        "Worker.execute_model", "Worker.sample_tokens",
    ),
    "v1.worker.gpu_model_runner": (
        "GPUModelRunner._model_forward", "GPUModelRunner.input_batch", "GPUModelRunner.requests",
        "GPUModelRunner.query_start_loc", "GPUModelRunner.discard_request_mask",
        "GPUModelRunner.max_num_tokens", "GPUModelRunner.get_model", "GPUModelRunner.profile_run",
    ),
    "v1.worker.gpu_input_batch": ("InputBatch.req_ids", "InputBatch.generators",
                                  "InputBatch.num_computed_tokens_cpu"),
    "v1.worker.gpu.model_runner": (
        "GPUModelRunner.prepare_inputs", "GPUModelRunner.execute_model",
        "GPUModelRunner.execute_model_state", "GPUModelRunner.max_num_tokens",
        "GPUModelRunner.get_model", "GPUModelRunner.profile_run", "ExecuteModelState.hidden_states",
    ),
    "v1.worker.gpu.input_batch": ("InputBatch.req_ids", "InputBatch.num_reqs",
                                  "InputBatch.query_start_loc_np",
                                  "InputBatch.num_computed_tokens_np", "InputBatch.input_ids"),
    "model_executor.models.registry": ("ModelRegistry",),
    "model_executor.layers.linear": ("LinearBase.input_size", "LinearBase.output_size",
                                     "ReplicatedLinear", "RowParallelLinear.tp_rank",
                                     "RowParallelLinear.input_size_per_partition"),
    "model_executor.layers.attention_layer_base": ("AttentionLayerBase",),
    "model_executor.layers.activation": ("SiluAndMul", "SiluAndMulWithClamp", "GeluAndMul",
                                         "SwigluStepAndMul", "SituAndMul"),
    "model_executor.layers.fusion.fused_act_quant": (
        "_FUSED_ACT_QUANT", "_FUSED_ACT_QUANT_SUPPORT", "maybe_fused_act_quant",
    ),
    "model_executor.layers.fusion.quant_activation": (
        "QuantizedActivation.data", "QuantizedActivation.scale", "QuantizedActivation.orig_dtype",
        "QuantizedActivation.orig_shape", "QuantizedActivation.quant_key",
    ),
    "model_executor.layers.quantization.utils.quant_utils": ("kFp8Dynamic128Sym",),
    f"{_MOE}.unquantized_fused_moe_method": ("select_unquantized_moe_backend",),
    f"{_MOE}.activation": ("MoEActivation.SILU", "MoEActivation.GELU", "MoEActivation.GELU_TANH",
                           "MoEActivation.SWIGLUOAI", "MoEActivation.SWIGLUOAI_UNINTERLEAVE",
                           "MoEActivation.SWIGLUSTEP", "MoEActivation.SITU", "MoEActivation.RELU2",
                           "MoEActivation.RELU2_NO_MUL", "MoEActivation.SILU_NO_MUL",
                           "MoEActivation.GELU_NO_MUL", "MoEActivation.GELU_TANH_NO_MUL"),
    f"{_MOE}.config": (
        "FusedMoEConfig.__post_init__", "FusedMoEConfig.is_act_and_mul",
        "FusedMoEConfig.activation", "FusedMoEConfig.swiglu_limit", "FusedMoEConfig.swiglu_alpha",
        "FusedMoEConfig.swiglu_beta", "FusedMoEConfig.activation_situ_beta",
        "FusedMoEConfig.activation_situ_linear_beta", "FusedMoEConfig.num_experts",
        "FusedMoEConfig.num_logical_experts", "FusedMoEConfig.experts_per_token",
        "FusedMoEConfig.intermediate_size_per_partition", "FusedMoEConfig.moe_parallel_config",
        "FusedMoEConfig.is_lora_enabled", "FusedMoEParallelConfig.tp_rank",
        "FusedMoEParallelConfig.tp_size", "FusedMoEParallelConfig.is_sequence_parallel",
        "FusedMoEParallelConfig.use_all2all_kernels", "FusedMoEParallelConfig.enable_eplb",
    ),
    f"{_MOE}.experts.cpu_moe": ("CPUUnquantizedExperts.process_weights_after_loading",
                                "CPUUnquantizedExperts.apply"),
    f"{_MOE}.experts.triton_moe": ("TritonExperts.apply",),
    f"{_MOE}.modular_kernel": ("FusedMoEExpertsModular.activation",),
    f"{_MOE}.oracle.unquantized": ("UnquantizedMoeBackend.CPU", "UnquantizedMoeBackend.TRITON"),
    f"{_MOE}.runner.moe_runner": ("MoERunner.routed_experts", "MoERunner.moe_config",
                                  "MoERunner.shared_experts", "MoERunner.router"),
    f"{_MOE}.router.fused_moe_router": ("FusedMoERouter.select_experts",),
    f"{_MOE}.router.cpu_router": ("CPURouter._compute_routing", "_grouped_topk"),
    "model_executor.layers.rotary_embedding.base": ("RotaryEmbedding.forward_cpu",),
    "model_executor.layers.mamba.ops.cpu.gdn_attention": ("_cpu_gdn_attention_nonspec",),
    # 0.32 and 0.33
    "entrypoints.launchers.cli_args | entrypoints.common.cli_args": (
        "make_arg_parser", "validate_parsed_serve_args",
    ),
    "entrypoints.launchers.api_server.entry": ("run_server",),
    "utils.argparse_utils": ("FlexibleArgumentParser",),
}  # fmt: skip
"""module (`one | other` where versions differ) -> its names. `Class.name`: a method or field that
this class itself defines, or an attribute that its methods set."""


def missing(folder: Path) -> list[str]:
    """What of `USED` the vLLM in a folder lacks, as `module: name`."""
    lacking = []
    for modules, names in USED.items():
        known: set[str] = set()
        for module in modules.split(" | "):
            file = folder.joinpath(*module.split("."))
            file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
            if file.is_file():
                known.update(_defined(ast.parse(file.read_bytes())))
        lacking += [f"vllm.{modules}: {name}" for name in names if name not in known]
    return lacking


def check_names(version: str, folder: Path | None = None) -> None:
    """Raise InputError, naming the first, if a vLLM lacks names of `USED`.

    folder: of its sources; None: the installed one's.
    """
    if folder is None:
        spec = find_spec("vllm")
        assert spec is not None  # the version was read from its metadata
        assert spec.submodule_search_locations is not None
        folder = Path(spec.submodule_search_locations[0])
    if lacking := missing(folder):
        more = f", and {len(lacking) - 1} more names" if len(lacking) > 1 else ""
        raise InputError(
            f"vllm {version}: {lacking[0]}, which counting uses, is gone{more}; install a tested "
            "version"
        )


def _defined(tree: ast.Module) -> Iterator[str]:
    """The names of a module: `Class.attribute` too, by definition, annotation or assignment."""
    for node in tree.body:
        yield from _bound(node)
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{name}" for name in _of_class(node))
        elif isinstance(node, ast.If | ast.Try):  # platforms differ
            for inner in ast.walk(node):
                yield from _bound(inner)


def _of_class(node: ast.ClassDef) -> Iterator[str]:
    """What the body of a class defines, and what its methods set on `self`."""
    inner = list(ast.walk(node))
    local = {
        part for n in inner if isinstance(n, _FUNCTIONS) for s in n.body for part in ast.walk(s)
    }
    for part in inner[1:]:
        if part not in local:
            yield from _bound(part)
        else:
            yield from (t.attr for t in _targets(part) if isinstance(t, ast.Attribute))


def _bound(node: ast.AST) -> Iterator[str]:
    """The names that a statement binds, `self.name` as `name`."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
    for target in _targets(node):
        if isinstance(target, ast.Name):
            yield target.id
        elif isinstance(target, ast.Attribute):
            yield target.attr


def _targets(node: ast.AST) -> Iterator[ast.expr]:
    """What an assignment assigns to."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield from target.elts if isinstance(target, ast.Tuple) else [target]
    elif isinstance(node, ast.AnnAssign):
        yield node.target


def main(arguments: Sequence[str]) -> int:
    """Print what a vLLM lacks; 1 if anything, else 0."""
    lacking = missing(Path(arguments[0]))
    print("\n".join(lacking) or f"all {sum(map(len, USED.values()))} names are there")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
