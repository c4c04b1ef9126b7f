"""vLLM's OpenAI-compatible server on a model some of whose neurons are scaled."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparcom.component_list import read_components
from sparcom.components import ComponentSpace
from sparcom.counting.signs import GATE_SIGNS
from sparcom.engines.vllm.options import ServingConfig, VllmOptions
from sparcom.engines.vllm.process.faults import cause_of, fault_file_in
from sparcom.engines.vllm.process.launch import (
    check_launch,
    environ,
    environment,
    installed_version,
)
from sparcom.engines.vllm.worker.fingerprint import kernel_version
from sparcom.errors import InputError, SparcomError

WORKER = "sparcom.engines.vllm.worker.serving.ServingWorker"
_CPU_CACHE = "VLLM_CPU_KVCACHE_SPACE"  # GiB; vLLM's own default is 4, or half of the memory


def factors_of(
    scales: Sequence[str], space: ComponentSpace
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """([n] flat neuron indices, sorted; [n] factors; [n] signs) of words FILE=X.

    X is a factor, or "negative" or "positive": the sign of the gates at which h is 0; else the sign
    is 0. An expert of a list is all its neurons. Raises InputError for a word of another form, and
    for a neuron that two lists name.
    """
    found: dict[int, tuple[float, int]] = {}
    for word in scales:
        path, equals, text = word.rpartition("=")
        sign = GATE_SIGNS.get(text, 0)
        try:
            factor = float(text) if equals and not sign else np.nan
        except ValueError:
            factor = np.nan
        if not path or not (sign or np.isfinite(factor)):
            raise InputError(
                "serve: scale: expected FILE=FACTOR, as list.csv=0, or FILE=negative or "
                f"FILE=positive, got {word!r}"
            )
        listed = read_components(path, space)
        of_experts = np.flatnonzero(np.isin(space.neuron_experts, listed.experts))
        for neuron in np.union1d(listed.neurons, of_experts).tolist():
            if neuron in found:
                raise InputError(f"serve: scale: two lists name the neuron of flat index {neuron}")
            found[neuron] = factor, sign
    index = np.array(sorted(found), np.int64)
    factors, signs = ([found[one][part] for one in index.tolist()] for part in (0, 1))
    return index, np.array(factors, np.float64), np.array(signs, np.int64)


def serve(
    options: VllmOptions, space: ComponentSpace, scales: Sequence[str], server: Sequence[str] = ()
) -> None:
    """Serve a model until it is interrupted.

    options: model, dtype, compile, trust_remote_code, tensor_parallel, threads. space: the model's.
    scales: words of `factors_of`; none serves the model as it is, through the same code.
    server: further arguments of `vllm serve`.
    Raises InputError if an argument, vLLM or the model does not work; SparcomError if vLLM does not
    start.
    """
    check_launch(options)
    index, factors, signs = factors_of(scales, space)
    config = ServingConfig(
        sites=space.to_json(), index=index.tobytes(), factors=factors.tobytes(),
        signs=signs.tobytes(), kernel=kernel_version(),
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="sparcom-serve-") as folder:
        faults = fault_file_in(Path(folder))
        variables = environment(options, Path(folder)) | _cache_of(os.environ)
        with environ(variables):
            try:
                _run(arguments(options, config, server))
            except (InputError, KeyboardInterrupt, SystemExit):
                raise
            except Exception as error:
                cause = cause_of(error, faults)
                raise SparcomError(f"vllm {installed_version()} did not serve: {cause}") from error


def arguments(options: VllmOptions, config: ServingConfig, server: Sequence[str]) -> Any:
    """vLLM's own arguments of its server."""
    try:
        from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    except ModuleNotFoundError:  # its place from 0.33 on
        from vllm.entrypoints.common.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args([options.model, *server])
    parsed.model = options.model
    parsed.dtype = options.dtype
    parsed.trust_remote_code = options.trust_remote_code
    parsed.tensor_parallel_size = options.tensor_parallel
    parsed.enforce_eager = not options.compile
    parsed.worker_cls = WORKER
    parsed.additional_config = config
    validate_parsed_serve_args(parsed)
    return parsed


def _cache_of(variables: Mapping[str, str]) -> dict[str, str]:
    """On CPU vLLM would take 4 GiB or more for its KV cache."""
    return {} if _CPU_CACHE in variables else {_CPU_CACHE: "1"}


def _run(parsed: Any) -> None:
    import asyncio

    from vllm.entrypoints.launchers.api_server.entry import run_server

    asyncio.run(run_server(parsed))
