"""The buffers of a worker that ablates: every pass does what they hold at that time."""

import numpy as np
import pytest
import torch

from sparcom.components import Site
from sparcom.counting.recorder import Recorder
from sparcom.counting.reference import silu
from sparcom.engines.vllm.worker.ablation import AblationBuffers

SITES = (Site("dense", 0, 5, "silu"), Site("routed", 1, 4, "silu", experts=3, top_k=1))
EXPERT = torch.tensor([2, 0, 1, 1, 2, 0, 0], dtype=torch.int32)


Parts = list[torch.Tensor]


def passed(recorder: Recorder) -> tuple[Parts, Parts, Parts]:
    """(gates, h by the plain formula, h by the recorder) of both sites, in a pass of seven rows."""
    generator = torch.Generator().manual_seed(0)
    recorder.begin(torch.zeros(7, dtype=torch.int32))
    gates, plain, found = [], [], []
    for at, site in enumerate(SITES):
        gate, up = torch.randn(2, 7, site.width, generator=generator)
        gates.append(gate)
        plain.append((silu(gate.double())).float() * up)
        if site.experts:
            found.append(recorder.count_routed(at, gate, up, torch.arange(7), EXPERT))
        else:
            found.append(recorder.count(at, gate, up))
    return gates, plain, found


@pytest.mark.parametrize("graphs", [False, True])
def test_factors_and_signs_of_each_neuron(graphs: bool) -> None:
    recorder = Recorder(SITES, 1)
    buffers = AblationBuffers(recorder, torch.float32, graphs)
    index = np.array([1, 3, 5, 10, 16])  # units 1, 3; of expert 0 unit 0, of 1 unit 1, of 2 unit 3
    buffers.set(index, None, np.array([0.5, 9, 9, 2, 9]), np.array([0, -1, 1, 0, -1]))
    gates, plain, found = passed(recorder)
    dense, routed = (h.clone() for h in plain)
    dense[:, 1] *= 0.5
    dense[gates[0][:, 3] < 0, 3] = 0
    routed[(EXPERT == 0) & (gates[1][:, 0] > 0), 0] = 0
    routed[EXPERT == 1, 1] *= 2
    routed[(EXPERT == 2) & (gates[1][:, 3] < 0), 3] = 0
    torch.testing.assert_close(found, [dense, routed])
    assert all((a != b).any() for a, b in zip(plain, found, strict=True))
    for values, sign in ((None, 0), (np.array([0.25]), 0), (None, 1)):
        buffers.set(np.array([2]), values, 0.0, sign)
        gates, plain, found = passed(recorder)
        expected = plain[0].clone()
        expected[:, 2] = 0.0 if values is None else 0.25
        if sign:
            expected[:, 2] = torch.where(gates[0][:, 2] > 0, 0.0, plain[0][:, 2])
        torch.testing.assert_close(found, [expected, plain[1]])
    buffers.set(np.zeros(0, np.int64), None, 0.0)
    _, plain, found = passed(recorder)
    torch.testing.assert_close(found, plain)


def test_graphs_look_at_signs_that_come_later() -> None:
    """A graph replays the operations that it saw; they must read the buffers of every site."""
    recorder = Recorder(SITES, 1)
    buffers = AblationBuffers(recorder, torch.float32, graphs=True)
    captured = dict(recorder._changes)  # what a graph would have recorded, at every site
    buffers.set(np.array([0]), None, 0.0, -1)
    recorder._changes = captured
    gates, plain, found = passed(recorder)
    plain[0][gates[0][:, 0] < 0, 0] = 0
    torch.testing.assert_close(found, plain)
    without = Recorder(SITES, 1)
    AblationBuffers(without, torch.float32)
    assert not without._changes  # nothing is looked at
