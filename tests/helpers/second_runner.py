"""Count with vLLM's second model runner, on a CPU: one JSON object in, one out.

The second runner's kernels are Triton's. Triton has no backend for CPUs on PyPI, but interprets its
kernels there (slowly), and vLLM's own second runner for CPUs does the rest. So vLLM is made to
believe in the backend, in a process of its own: all of vLLM is imported after that.

    {"folder": "...", "options": {...}, "batches": [
        {"prompts": [[id, token ids, ranges, generate], ...],
         "forget": one of vllm_workers.HANDLINGS or null}, ...]}
    {"runner": class, "batches": [
        {"counts": {id: [T, counts]}, "broken": [...], "recomputed": n, "cached": n}, ...]}

Dummy passes follow each batch: what they count is found in the next one.
"""

import json
import os
import socket
import sys
from types import SimpleNamespace
from typing import Any


def pretend_triton_has_a_cpu_backend() -> None:
    """Before vLLM is imported: it asks this registry, and this switch interprets all kernels."""
    os.environ["TRITON_INTERPRET"] = "1"
    from triton import backends

    driver = SimpleNamespace(is_active=lambda: True)
    backends.backends["cpu"] = SimpleNamespace(driver=driver, compiler=None)


def stay_in_this_process() -> None:
    """An outside launcher's engine of one rank runs where it is called."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(
        RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )


def run(work: dict[str, Any]) -> dict[str, Any]:
    """What the module's docstring says."""
    from vllm_tools import client_of, worker_class

    from sparcom.engines.vllm.engine import VllmEngine
    from sparcom.engines.vllm.options import VllmOptions

    options = VllmOptions(work["folder"], executor="external_launcher", threads=1, prove=False,
                          **work["options"])  # fmt: skip
    with worker_class("vllm_workers.ForgetfulWorker"):
        engine = VllmEngine(options)
    try:
        found = [count(engine, **batch) for batch in work["batches"]]
        return {"runner": client_of(engine).call_workers("sparcom_runner")[0], "batches": found}
    finally:
        engine.close()


def count(engine: Any, prompts: list[list[Any]], forget: str | None) -> dict[str, Any]:
    """One batch."""
    from vllm_tools import by_id, client_of

    from sparcom.corpus.prompts.prompts import Prompt

    client, before = client_of(engine), (engine.recomputed, engine.cached)
    if forget:
        client.call_workers("sparcom_forget", forget)
    found = by_id(
        engine.count(
            [Prompt(name, tuple(ids), tuple(map(tuple, ranges)), generate=generate)
             for name, ids, ranges, generate in prompts]
        )
    )  # fmt: skip
    client.call_workers("sparcom_dummy_passes")
    client.call_workers("sparcom_remember")
    return {
        "counts": {name: [tokens, row.tolist()] for name, (tokens, row) in found.items()},
        "broken": client.call_workers("sparcom_broken")[0],
        "recomputed": engine.recomputed - before[0],
        "cached": engine.cached - before[1],
    }


if __name__ == "__main__":
    pretend_triton_has_a_cpu_backend()
    stay_in_this_process()
    print(json.dumps(run(json.load(sys.stdin))))
