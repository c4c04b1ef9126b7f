"""What a model's config says about loading it into vLLM, and which models are refused by it.

Everything that a user can get wrong is said here in one line, before vLLM is imported or a weight
is read; vLLM itself reports some of it only in a worker's log.
"""

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from safetensors import safe_open

from sparcom.engines.vllm.options import VllmOptions
from sparcom.errors import InputError
from sparcom.quantisation import Quantisation, check_readable, quantisation_of

DEFAULT_CONTEXT = 8192  # tokens
KV_BLOCK = 128  # tokens that one block of the KV cache holds on CPU


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What the config of a model says, as far as loading depends on it.

    width: neurons of a dense MLP; expert_width: of a routed expert. experts: of a layer, 0 if the
    model has none. quantised: method by which weights are quantised, "" if they are plain.
    """

    context: int
    heads: int
    kv_heads: int
    layers: int
    width: int
    experts: int
    expert_width: int
    quantised: str = ""


def check_model(options: VllmOptions) -> ModelFacts:
    """The facts of a model that this engine can count, split as the options say.

    Raises InputError if it cannot, or if the model's config cannot be read.
    """
    facts = read_facts(options)
    _check_split(options, facts)
    _check_context(options, facts)
    return facts


def context_of(options: VllmOptions, facts: ModelFacts) -> int:
    """Longest sequence in tokens: prompt and counted response together."""
    return options.context or min(facts.context, DEFAULT_CONTEXT)


def kv_cache_tokens(options: VllmOptions, facts: ModelFacts) -> int:
    """Tokens that the KV cache holds on CPU: enough that `slots` short prompts never wait."""
    if options.kv_cache_tokens is not None:
        return options.kv_cache_tokens
    busy = 2 * options.batch_tokens + options.slots * 2 * KV_BLOCK
    return max(context_of(options, facts) + 1, busy) + KV_BLOCK


def read_facts(options: VllmOptions) -> ModelFacts:
    """The facts of a model, from its config alone.

    Raises InputError if the config cannot be read, and for quantised experts of a local folder.
    """
    from transformers import AutoConfig

    try:
        whole = AutoConfig.from_pretrained(
            options.model, trust_remote_code=options.trust_remote_code
        )
    except (OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"model {options.model}: {first}") from error
    quantised = quantisation_of(whole)
    if quantised is not None:
        _check_experts(options.model, quantised, whole)
    config = whole.get_text_config()

    def first_of(*names: str) -> int:
        return next((v for n in names if isinstance(v := getattr(config, n, None), int)), 0)

    heads, hidden = first_of("num_attention_heads", "n_head"), first_of("hidden_size", "n_embd")
    return ModelFacts(
        context=first_of("max_position_embeddings", "n_positions") or DEFAULT_CONTEXT,
        heads=heads,
        kv_heads=first_of("num_key_value_heads") or heads,
        layers=first_of("num_hidden_layers", "n_layer"),
        width=first_of("intermediate_size", "ffn_dim", "n_inner") or 4 * hidden,
        experts=first_of("num_local_experts", "num_experts", "n_routed_experts"),
        expert_width=first_of("moe_intermediate_size", "intermediate_size"),
        quantised=quantised.method if quantised else "",
    )


def end_tokens(options: VllmOptions) -> list[int]:
    """Token ids that end an answer, from the generation config, else the model's config."""
    from transformers import AutoConfig, GenerationConfig

    try:
        ends = GenerationConfig.from_pretrained(options.model).eos_token_id
    except OSError:  # there is no generation_config.json
        ends = None
    if ends is None:
        config = AutoConfig.from_pretrained(
            options.model, trust_remote_code=options.trust_remote_code
        )
        ends = config.get_text_config().eos_token_id
    return list(ends) if isinstance(ends, list | tuple) else [] if ends is None else [ends]


def check_memory(options: VllmOptions, facts: ModelFacts) -> None:
    """Raise InputError if the weights alone exceed this machine's free memory (CPU)."""
    if facts.quantised:  # they stay as they are
        needed = sum(file.stat().st_size for file in Path(options.model).glob("*.safetensors"))
    else:  # vLLM's "auto" reads 32 bits as 16
        needed = weights_of(Path(options.model)) * (4 if options.dtype == "float32" else 2)
    if options.executor == "external_launcher":
        needed //= options.world_size  # each rank speaks for itself, on a machine of its own or not
    free = psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"model {options.model}: its weights take {needed / 2**30:.1f} GiB, but "
            f"{free / 2**30:.1f} GiB of memory is free; share it over more machines, or use a "
            "smaller dtype"
        )


def weights_of(folder: Path) -> int:
    """How many numbers the weights of a folder are, from the headers of its files alone."""
    total = 0
    for file in folder.glob("*.safetensors"):
        if file.name.startswith("consolidated"):  # the same weights again, in Mistral's format
            continue
        with safe_open(file, "pt") as weights:
            names = weights.keys()
            total += sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
    return total


def _check_experts(model: str, quantised: Quantisation, config: Any) -> None:
    """Raise InputError if the files of a local folder hold quantised experts.

    vLLM computes those in kernels of its own, which show no activation. Those of a model that is
    not here yet are refused when they are loaded.
    """
    from sparcom.engines.transformers.packed import quantised_experts
    from sparcom.engines.transformers.weights import read_headers

    files = sorted(Path(model).glob("*.safetensors")) if Path(model).is_dir() else []
    name = quantised_experts(quantised, read_headers(model, files))
    if name is None:
        return
    way = "give the model in bfloat16, float16 or float32"
    with suppress(InputError):
        check_readable(model, config)
        way = "use --engine transformers"
    raise InputError(
        f"model {model}: its experts are quantised ({quantised.method}: {name}), and vLLM computes "
        f"such experts in kernels of its own, which cannot be counted; {way}"
    )


def _check_split(options: VllmOptions, facts: ModelFacts) -> None:
    if options.expert_parallel and facts.experts < 2:
        raise InputError("expert-parallel: this model has no routed experts")
    tp, pp = options.tensor_parallel, options.pipeline_parallel
    split = [("attention heads", facts.heads), ("neurons of a layer", facts.width)]
    if facts.experts and not options.expert_parallel:
        split.append(("neurons of an expert", facts.expert_width))
    for what, size in split:
        if size % tp:
            raise InputError(f"tensor-parallel {tp} does not divide the {size} {what}")
    if max(tp, facts.kv_heads) % max(1, min(tp, facts.kv_heads)):
        raise InputError(
            f"tensor-parallel {tp} and the {facts.kv_heads} key-value heads do not divide"
        )
    if facts.layers < pp:
        raise InputError(f"pipeline-parallel {pp} is more than the {facts.layers} layers")


def _check_context(options: VllmOptions, facts: ModelFacts) -> None:
    if options.context is not None and options.context > facts.context:
        raise InputError(
            f"context {options.context} is more than the model reads, {facts.context} tokens"
        )
    context = context_of(options, facts)
    least = -(-(context + 1) // KV_BLOCK) * KV_BLOCK
    if options.kv_cache_tokens is not None and options.kv_cache_tokens < least:
        raise InputError(
            f"kv-cache-tokens: must be at least {least} (context {context} and one more token, in "
            f"blocks of {KV_BLOCK}), got {options.kv_cache_tokens}; raise it, or lower context"
        )
