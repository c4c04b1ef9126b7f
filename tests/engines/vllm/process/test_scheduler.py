"""How far vLLM looks for a request in its cache: up to the first counted token."""

from types import SimpleNamespace

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed")

from sparcom.engines.vllm.process.scheduler import up_to_counted
from sparcom.engines.vllm.worker.rows import request_note


def request(n: int, counted: list[tuple[int, int]], response: bool = False) -> SimpleNamespace:
    params = SimpleNamespace(extra_args=request_note(0, counted, n, response))
    return SimpleNamespace(num_tokens=n, sampling_params=params, block_hashes=["h"])


def most_of_vllm(request, max_cache_hit_length=None):
    """The bound of vLLM 0.33, and without a second argument that of 0.32."""
    assert request.block_hashes == ["h"]
    return request.num_tokens - 1 if max_cache_hit_length is None else max_cache_hit_length


@pytest.mark.parametrize(
    ("asked", "most"),
    [
        (request(9, [(4, 9)]), 4),
        (request(9, [(0, 9)]), 0),
        (request(9, [(8, 9)]), 8),
        (request(9, []), 8),
        (request(9, [], response=True), 8),
        (request(12, [(5, 6), (2, 3)]), 2),
    ],
)
def test_no_counted_token_is_looked_for(asked, most):
    look_up = up_to_counted(most_of_vllm)
    assert look_up(asked) == look_up(asked, None) == look_up(asked, 99) == most
    assert look_up(asked, 1) == min(1, most)
    assert asked.num_tokens > most
