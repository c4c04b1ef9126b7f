"""`sparcom serve`: words become factors, and the server answers as a model with scaled weights."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import save_tiny_llm
from transformers import AutoModelForCausalLM
from vllm_tools import SHAPE

from sparcom.component_list import component_table, write_components
from sparcom.components import ComponentSpace, Site
from sparcom.engines.vllm.serve import factors_of
from sparcom.errors import InputError

SPACE = ComponentSpace((
    Site("dense", 0, 4, "silu"), Site("routed", 1, 2, "silu", experts=3, top_k=1),
))  # fmt: skip
IDS = [5, 9, 33, 70, 12, 41]


def test_words_become_factors(tmp_path: Path) -> None:
    neurons, experts = str(tmp_path / "n=1.csv"), str(tmp_path / "e.csv")
    write_components(neurons, component_table(SPACE, "neurons", np.array([1, 3])))
    write_components(experts, component_table(SPACE, "experts", np.array([2])))
    index, factors, signs = factors_of([f"{neurons}=0", f"{experts}=-1.5"], SPACE)
    assert index.tolist() == [1, 3, 8, 9]
    assert factors.tolist() == [0, 0, -1.5, -1.5]
    assert signs.tolist() == [0, 0, 0, 0]
    index, factors, signs = factors_of([f"{neurons}=negative", f"{experts}=2"], SPACE)
    assert index.tolist() == [1, 3, 8, 9]
    assert factors[2:].tolist() == [2, 2]
    assert signs.tolist() == [-1, -1, 0, 0]
    assert factors_of([f"{experts}=positive"], SPACE)[2].tolist() == [1, 1]
    assert factors_of([], SPACE)[0].tolist() == []
    for word in (
        neurons[:-8],
        f"{experts}",
        f"{experts}=",
        f"{experts}=inf",
        f"{experts}=mean",
        "=1",
    ):
        with pytest.raises(InputError, match="expected FILE=FACTOR, as list.csv=0"):
            factors_of([word], SPACE)
    with pytest.raises(InputError, match="two lists name the neuron of flat index 1"):
        factors_of([f"{neurons}=0", f"{neurons}=2"], SPACE)
    with pytest.raises(InputError, match="cannot be read"):
        factors_of([f"{tmp_path}/none.csv=0"], SPACE)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def ask(port: int, server: subprocess.Popen) -> list[int]:
    """Token ids of the server's greedy answer to `IDS`, once it is up."""
    asked = {
        "model": "served", "prompt": IDS, "max_tokens": 8, "temperature": 0,
        "return_token_ids": True, "ignore_eos": True,
    }  # fmt: skip
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions",
        json.dumps(asked).encode(),
        {"Content-Type": "application/json"},
    )
    while server.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                found: dict[str, Any] = json.load(answer)
            return list(found["choices"][0]["token_ids"])
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError:  # it is not up yet
            time.sleep(1)
    raise AssertionError(f"the server ended with {server.returncode}")


def plain_answer(folder: Path, neurons: np.ndarray, word: str) -> list[int]:
    """The same by transformers, neurons of the second layer silenced by "0" or "negative"."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    mlp, gates = model.model.layers[1].mlp, []

    def silence(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        h, gate = inputs[0].clone(), gates.pop()[..., neurons]
        where = gate < 0 if word == "negative" else torch.ones_like(gate, dtype=torch.bool)
        h[..., neurons] = torch.where(where, 0, h[..., neurons])
        return h

    if word:
        mlp.gate_proj.register_forward_hook(lambda *of: gates.append(of[2]))
        mlp.down_proj.register_forward_pre_hook(silence)
    ids = list(IDS)
    for _ in range(8):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(IDS) :]


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--compile"]], ids=["eager", "compiled"])
def test_the_server_answers_with_and_without(tmp_path: Path, more: list[str]) -> None:
    """As transformers, with neurons silenced everywhere, or where their gate is negative."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    folder = save_tiny_llm(tmp_path / "model", **SHAPE)
    space = ComponentSpace(tuple(Site("dense", layer, 56, "silu") for layer in range(3)))
    neurons = np.arange(40)
    listed = str(tmp_path / "list.csv")
    write_components(listed, component_table(space, "neurons", 56 + neurons))
    found = []
    words = ["", "0", "negative"]
    for word in words:
        scale = ["--scale", f"{listed}={word}"] if word else []
        port = free_port()
        command = [sys.executable, "-m", "sparcom.cli", "serve", str(folder), *scale, *more]
        command += ["--dtype", "float32", "--cpus", "1", "--port", str(port)]
        command += ["--vllm=--served-model-name served"]
        server = subprocess.Popen(command, env=os.environ, start_new_session=True)
        try:
            found.append(ask(port, server))
        finally:
            with suppress(ProcessLookupError):  # it ended by itself
                os.killpg(server.pid, signal.SIGINT)
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
    expected = [plain_answer(folder, neurons, word) for word in words]
    assert len(set(map(tuple, expected))) == len(words)
    assert found == expected
