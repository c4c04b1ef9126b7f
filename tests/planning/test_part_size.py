"""The size of parts where none is asked for: by the corpus, the actors and the model."""

import pytest

from sparcom.components import ComponentSpace, Site
from sparcom.planning.part_size import default_part_size

SMALL = ComponentSpace((Site("dense", 0, 1536, "silu"),))
LLAMA_7B = ComponentSpace(tuple(Site("dense", layer, 11008, "silu") for layer in range(32)))


@pytest.mark.parametrize(
    ("instructions", "actors", "size"),
    [(1, 1, 128), (240, 1, 128), (1200, 1, 150), (1200, 2, 128), (5000, 1, 625), (20_000, 1, 1024),
     (20_000, 4, 625), (10**6, 64, 1024)],
)  # fmt: skip
def test_an_eighth_of_what_an_actor_counts_within_bounds(instructions, actors, size) -> None:
    assert default_part_size(instructions, SMALL, actors) == size


def test_the_counts_of_a_part_are_bounded() -> None:
    # 352,256 neurons of 4 bytes: 381 instructions are 537 of the 537 million bytes, 382 are more.
    assert default_part_size(20_000, LLAMA_7B, 1) == 381
    assert default_part_size(20_000, LLAMA_7B, 1, signs=True) == 127
    wide = ComponentSpace((Site("dense", 0, 1 << 28, "silu"),))
    assert default_part_size(20_000, wide, 1) == 1
