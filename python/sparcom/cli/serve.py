"""`sparcom serve MODEL`: vLLM's OpenAI-compatible server, with neurons or experts scaled."""

import argparse
import shlex
from typing import Any


def add_serve(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    given = parser.add_argument
    given("model", help="default, a folder, or a hub id")
    given("--scale", action="append", default=[], metavar="FILE=X",
          help="multiply the outputs of a list's components by X: list.csv=0 silences them; "
          "negative, positive: only where the gate is; may be given several times")  # fmt: skip
    given("--host", default="127.0.0.1", help="(default: 127.0.0.1)")
    given("--port", type=int, default=8000, help="(default: 8000)")
    given("--dtype", default="bfloat16", help="(default: bfloat16)")
    given("--compile", action="store_true", help="torch.compile (on CUDA: CUDA graphs too)")
    given("--tensor-parallel", type=int, default=1, metavar="N", help="workers (default: 1)")
    given("--cpus", type=int, help="CPU threads of each worker (default: all cores)")
    given("--trust-remote-code", action="store_true", help="run code that comes with the model")
    given("--vllm", default="", metavar="ARGS",
          help='further arguments of vllm serve: --vllm="--served-model-name ablated"')  # fmt: skip


def serve_command(arguments: argparse.Namespace) -> tuple[Any, int]:
    """Serve until interrupted."""
    from sparcom.engines.transformers.loading import read_model
    from sparcom.engines.vllm.options import VllmOptions
    from sparcom.engines.vllm.serve import serve
    from sparcom.models import resolve_model

    options = VllmOptions(
        resolve_model(arguments.model), dtype=arguments.dtype, compile=arguments.compile,
        tensor_parallel=arguments.tensor_parallel, threads=arguments.cpus,
        trust_remote_code=arguments.trust_remote_code,
    )  # fmt: skip
    where = ["--host", arguments.host, "--port", str(arguments.port)]
    more = shlex.split(arguments.vllm)
    serve(options, read_model(options).space, arguments.scale, [*where, *more])
    return {"served": arguments.model} if arguments.json else "", 0
