"""From a model's folder to its config, its sites and its loaded weights, each step checked."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)
from transformers.utils import logging as transformers_logging

from sparcom.components import ComponentSpace
from sparcom.engines.base import EngineOptions
from sparcom.engines.model_facts import ModelFacts
from sparcom.engines.transformers import weights
from sparcom.engines.transformers.accounting import check_accounted
from sparcom.engines.transformers.sites import (
    Ffn,
    decoder_layers,
    find_ffns,
    space_of,
    text_model,
)
from sparcom.errors import InputError
from sparcom.model_files import weight_files
from sparcom.models import model_folder
from sparcom.quantisation import dequantise, quantisation_of

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def read_model(options: EngineOptions) -> ModelFacts:
    """The facts of a model, from its config and the headers of its weights.

    Raises InputError for a model that is not supported, and for weights that do not fill it.
    Quantised weights are for the engine to refuse.
    """
    config = load_config(options)
    empty = empty_model(config, options.trust_remote_code)
    space = space_of(find_supported(empty))
    files = weight_files(model_folder(options.model))
    head = weights.check_files(options.model, files, empty)
    layers = len(decoder_layers(empty))
    return ModelFacts(options.model, space, vocabulary_of(empty), layers, head, config)


def load_config(options: EngineOptions) -> Any:
    """The model's config.

    Raises InputError for a config that cannot be read, and for code that is not trusted.
    """
    if options.dtype not in (*DTYPES, "auto"):
        raise InputError(f"dtype: expected {', '.join(DTYPES)} or auto, got {options.dtype!r}")
    with _as_input_error(options.model, "its config cannot be read"):
        return AutoConfig.from_pretrained(
            options.model, trust_remote_code=options.trust_remote_code
        )


def describe_model(config: Any, trust_remote_code: bool = False) -> ComponentSpace:
    """The component space of a model, from its config alone: no weight is read.

    Raises InputError for an architecture that is not supported.
    """
    return space_of(find_supported(empty_model(config, trust_remote_code)))


def class_of(config: Any) -> Any:
    """What builds a config's model: an auto class of transformers.

    A model of images and text whose weights are of the whole, or that has no class for text alone,
    is built whole; it is given text.
    """
    kind = type(config)
    if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForCausalLM
    whole = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[kind].__name__
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING or whole in (config.architectures or ()):
        return AutoModelForImageTextToText
    return AutoModelForCausalLM


def empty_model(config: Any, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model on the meta device."""
    name = config.name_or_path or config.model_type
    with torch.device("meta"), _as_input_error(name, "it cannot be built from its config"):
        return class_of(config).from_config(config, trust_remote_code=trust_remote_code)


def find_supported(model: PreTrainedModel) -> list[Ffn]:
    """The FFNs of a model; raises InputError if one is not known, or might be left out."""
    ffns = find_ffns(model)
    check_accounted(model, ffns)
    return ffns


def load_model(
    options: EngineOptions, config: Any, device: torch.device
) -> tuple[PreTrainedModel, bool]:
    """(the model with its weights, plain ones, whether it has a language model head).

    Raises InputError for weights that do not fill it, and for quantised ones that transformers does
    not read.
    """
    dequantise(options.model, config)
    transformers_logging.disable_progress_bar()
    with _as_input_error(options.model, "it cannot be loaded"):
        model, found = class_of(config).from_pretrained(
            model_folder(options.model),
            config=config,
            dtype=DTYPES.get(options.dtype, "auto"),
            attn_implementation="eager",
            use_safetensors=True,
            trust_remote_code=options.trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    head = weights.check_report(options.model, weights.Report.of(found), model)
    try:
        return model.to(device).eval(), head
    except torch.OutOfMemoryError as error:
        raise InputError(f"model {options.model}: does not fit on {device}") from error


@contextmanager
def _as_input_error(model: str, what: str) -> Iterator[None]:
    """Turn whatever transformers raises into one line: each model checks in a way of its own."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = first_line(error)
        if "conversion of the weights" in str(error):
            reason = weights.conversion_error(error)
        if "trust_remote_code" in str(error):
            reason = "it comes with code of its own; read it, then give --trust-remote-code"
        raise InputError(f"model {model}: {what}: {reason}") from error
    finally:
        transformers_logging.set_verbosity(level)


def body_of(model: PreTrainedModel) -> PreTrainedModel:
    """The model without its language model head: what puts out the last hidden state."""
    parts = (model.base_model, getattr(model, "model", model))  # Llama 4's base is another part
    body = next((part for part in parts if part is not model), model)
    if body is model and (text := text_model(model)[1]) is not model:
        return body_of(text)  # Llama 4 with images: its head is the text model's
    return body


def vocabulary_of(model: PreTrainedModel) -> int:
    """Rows of a model's embedding: ids from there on have none."""
    return model.get_input_embeddings().weight.shape[0]


def context_of(config: Any) -> int | None:
    """The longest sequence, in tokens, that a config names."""
    text = config.get_text_config()
    return getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)


def why_alone(model: PreTrainedModel) -> str | None:
    """Why prompts cannot share a pass, as far as a model's structure says, or the config of its
    quantised weights; None: they can."""
    quantised = quantisation_of(model.config)
    if quantised is not None and quantised.why_alone is not None:
        return quantised.why_alone
    if not (model._supports_attention_backend and model._can_set_attn_implementation()):
        return "its attention cannot be exchanged"
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    if others := sorted(kinds - {"full_attention", "sliding_attention"}):
        return f"its layers of type {', '.join(others)} are not packed"
    for name, layer in decoder_layers(model):
        for child, module in layer.named_modules(prefix=name):
            if isinstance(module, nn.Conv1d):
                return f"{child} mixes tokens"
    return None


def first_line(error: BaseException) -> str:
    """The first line of an error's text, after its class if it is not one of ours."""
    text = str(error).strip()
    first = text.splitlines()[0] if text else ""
    if isinstance(error, (InputError, OSError, ValueError)) and first:
        return first
    return f"{type(error).__name__}: {first}".removesuffix(": ")
