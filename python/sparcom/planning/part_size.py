"""How many instructions a part has, where none is asked for."""

from sparcom.components import ComponentSpace

LEAST, MOST = 128, 1024
PARTS_OF_AN_ACTOR = 8
COUNT_BYTES = 512 << 20


def default_part_size(
    instructions: int, space: ComponentSpace, actors: int, *, signs: bool = False
) -> int:
    """Instructions per part of a run: an eighth of what an actor counts, from 128 to 1,024.

    The larger a part, the fewer files, merges and last passes that are not full (docs, "Scaling"):
    what an eighth bounds is the work lost with an actor. Fewer, where the counts of a part would
    take more than `COUNT_BYTES`. signs: three counts for each component instead of one.
    """
    row = 4 * (space.neurons + space.experts) * (3 if signs else 1)
    size = min(max(instructions // (PARTS_OF_AN_ACTOR * actors), LEAST), MOST)
    return max(1, min(size, COUNT_BYTES // row))
