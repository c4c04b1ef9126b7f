"""The recorder with striped buffers, as on CUDA: the kernel is its emulation, the counts are plain.

Dense, shared and routed sites of odd widths, signs, recounts and reused slots; what `take` returns
is in the order of the neurons.
"""

import numpy as np
import pytest
import torch
from emulation import act_mul_count as emulated

from sparcom.components import Site
from sparcom.counting import layout
from sparcom.counting import recorder as recorder_module
from sparcom.counting.recorder import Recorder

SITES = (
    Site("dense", 0, 300, "silu"),
    Site("shared", 1, 256, "gelu"),
    Site("routed", 1, 40, "silu", experts=3, top_k=2),
    Site("dense", 2, 13, "relu"),
)
IDS, SLOTS = ("a", "b"), (2, 0)
ROWS = torch.tensor([2, 2, -1, 0, 0, 0, 2, 0], dtype=torch.int32)  # the slot of each row
TOKENS = (3, 4)


@pytest.fixture(autouse=True)
def _as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def kernel(*inputs, striped, **options):
        seen.append(striped)
        return emulated(*inputs, striped=striped, multiprocessors=2, **options)[0]

    monkeypatch.setattr(layout, "striped", lambda device: True)
    monkeypatch.setattr(recorder_module, "act_mul_count", kernel)
    yield
    assert seen
    assert all(seen)


def drawn(site: Site, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """gate, up, token and expert of each row of a pass."""
    generator = torch.Generator().manual_seed(seed)
    token = torch.arange(len(ROWS)).repeat_interleave(max(site.top_k, 1))
    expert = (torch.arange(len(token)) % max(site.bins, 1)).to(torch.int32)
    gate, up = (torch.randn(len(token), site.width, generator=generator) for _ in range(2))
    return gate, up, token, expert


def run(recorder: Recorder, seed: int) -> None:
    recorder.begin(ROWS)
    for index, site in enumerate(SITES):
        gate, up, token, expert = drawn(site, seed + index)
        if site.experts:
            recorder.count_routed(index, gate, up, token, expert)
        else:
            recorder.count(index, gate, up)


def plain(slot: int, seed: int) -> np.ndarray:
    """[3, neurons]: gate > 0, up > 0 and both, row by row."""
    parts = []
    for index, site in enumerate(SITES):
        gate, up, token, expert = (x.numpy() for x in drawn(site, seed + index))
        counts = np.zeros((3, site.bins, site.width), int)
        for r, t in enumerate(token):
            if ROWS[t] == slot:
                e = expert[r] if site.experts else 0
                counts[0, e] += gate[r] > 0
                counts[1, e] += up[r] > 0
                counts[2, e] += (gate[r] > 0) & (up[r] > 0)
        parts.append(counts.reshape(3, -1))
    return np.concatenate(parts, 1)


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("signs", [False, True])
def test_what_is_taken_is_in_order(signs: bool, verify: bool) -> None:
    recorder = Recorder(SITES, 4, signs=signs, verify=verify)
    for seed in (0, 100):  # the second time in slots that were cleared
        run(recorder, seed)
        counted = recorder.take(IDS, SLOTS, TOKENS)
        for row, slot in enumerate(SLOTS):
            expected = plain(slot, seed)
            assert counted.neurons[row].tolist() == expected[0].tolist()
            if signs:
                assert counted.signs[:, row].tolist() == expected[1:].tolist()
        assert counted.experts.sum(1).tolist() == [2 * t for t in TOKENS]
    recorder.drop(SLOTS)
    run(recorder, 7)
    recorder.discard()
    run(recorder, 0)
    assert recorder.take(IDS, SLOTS, TOKENS).neurons[0].tolist() == plain(SLOTS[0], 0)[0].tolist()


def test_counts_of_two_passes_add_up() -> None:
    recorder = Recorder(SITES, 4)
    run(recorder, 0)
    run(recorder, 50)
    counted = recorder.take(IDS, SLOTS, [2 * t for t in TOKENS])
    for row, slot in enumerate(SLOTS):
        expected = plain(slot, 0)[0] + plain(slot, 50)[0]
        assert counted.neurons[row].tolist() == expected.tolist()


def test_no_other_kernel_may_write_them() -> None:
    recorder = Recorder(SITES, 4)
    assert recorder.buffers_of(0) is None
    run(recorder, 0)  # for the fixture: it looks at what the kernel was told
