"""What grouped experts add up of their outputs, against each token's experts one by one."""

import numpy as np
import pytest
import torch

from sparcom import native
from sparcom.components import Site
from sparcom.counting.magnitudes import EXPERTS, NEURONS
from sparcom.counting.recorder import Recorder
from sparcom.engines.experts.grouped import GroupedExperts, Workspace, pack
from sparcom.engines.experts.tiles import Sizes
from sparcom.errors import InputError

SITE = Site("routed", 0, 32, "silu", experts=6, top_k=2)
amx = pytest.mark.skipif(not native.cpu().has_amx(), reason="no AMX for bf16")


def drawn(dtype: torch.dtype):
    """gate_up [6, 64, 32], down [6, 32, 32], hidden, ids, weights and slots of 50 tokens."""
    generator = torch.Generator().manual_seed(0)
    gate_up = (torch.randn(6, 64, 32, generator=generator) / 6).to(dtype)
    down = (torch.randn(6, 32, 32, generator=generator) / 6).to(dtype)
    hidden = torch.randn(50, 32, generator=generator).to(dtype)
    ids = torch.rand(50, 6, generator=generator).topk(2).indices
    weights = torch.rand(50, 2, generator=generator)
    return gate_up, down, hidden, ids, weights, torch.arange(50, dtype=torch.int32) % 3 - 1


def plain(gate_up, down, hidden, ids, weights, slots) -> dict[str, np.ndarray]:
    """Token by token, expert by expert."""
    out = {name: np.zeros((2, 6 * 32)) for name in NEURONS}
    out |= {name: np.zeros((2, 6)) for name in EXPERTS}
    out["largest"].fill(-np.inf)
    for token, slot in enumerate(slots.tolist()):
        for k in range(2) if slot >= 0 else ():
            e, g = int(ids[token, k]), float(weights[token, k])
            gate, up = (gate_up[e].float() @ hidden[token].float()).to(down.dtype).chunk(2)
            h = torch.nn.functional.silu(gate.float()).to(down.dtype) * up
            norm = float((down[e].float() @ h.float()).to(down.dtype).double().norm())
            units, x = slice(e * 32, e * 32 + 32), h.double().numpy()
            out["sums"][slot, units] += x
            out["absolutes"][slot, units] += abs(x)
            out["largest"][slot, units] = np.maximum(out["largest"][slot, units], x)
            for name, value in zip(EXPERTS, (g, norm, norm**2, g * norm), strict=True):
                out[name][slot, e] += value
    return out


def found(case, local: tuple[int, ...], packed: bool) -> dict[str, np.ndarray]:
    """What a worker with these experts adds up."""
    gate_up, down, hidden, ids, weights, slots = case
    some = list(local or range(6))
    part = Site("routed", 0, 32, "silu", experts=len(some), top_k=2)
    recorder = Recorder([part], 2, partial=[0] if local else [], magnitudes=True)
    if packed:
        laid, sizes = (pack(gate_up[some]), pack(down[some])), None
    else:
        laid, sizes = (gate_up[some].transpose(1, 2), down[some].transpose(1, 2)), Sizes((8, 16), 1)
    experts = GroupedExperts(*laid, SITE, 0, recorder, Workspace(), sizes, "experts", local)
    recorder.begin(slots)
    experts(hidden, ids, weights)
    tokens = [int((slots == s).sum()) for s in (0, 1)]
    counted = recorder.take(["a", "b"], [0, 1], tokens)
    return {name: getattr(counted.magnitudes, name) for name in (*NEURONS, *EXPERTS)}


@pytest.mark.parametrize(
    ("dtype", "packed"),
    [(torch.float32, False), pytest.param(torch.bfloat16, True, marks=amx)],
)
@pytest.mark.parametrize("local", [(), (4, 0, 2)])
def test_magnitudes_are_those_of_each_token(dtype, packed: bool, local: tuple[int, ...]) -> None:
    case = drawn(dtype)
    expected, ours = plain(*case), found(case, local, packed)
    some = list(local or range(6))
    close = {"rtol": 2e-2, "atol": 2e-2} if packed else {"rtol": 1e-5, "atol": 1e-5}
    for name in (*NEURONS, *EXPERTS):
        whole = expected[name].reshape(2, 6, -1)[:, some].reshape(2, -1)
        np.testing.assert_allclose(ours[name], whole, err_msg=name, **close)


def test_a_slice_of_every_expert_is_refused() -> None:
    gate_up, down, *_ = drawn(torch.float32)
    half = Site("routed", 0, 16, "silu", experts=6, top_k=2)
    recorder = Recorder([half], 2, magnitudes=True)
    laid = gate_up[:, :32].transpose(1, 2), down[:, :, :16].transpose(1, 2)
    with pytest.raises(InputError, match=r"has 16 of the 32 units of each expert of experts"):
        GroupedExperts(*laid, SITE, 0, recorder, Workspace(), Sizes((8, 16), 1), "experts")
