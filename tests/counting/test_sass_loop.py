"""The shortest path through a loop of machine code, from which the roofline follows."""

import pytest

from sass import Instruction, reached_without, shortest_loop

LOOP = [
    Instruction(0x00, "", "MOV", "R1, R2"),
    Instruction(0x10, "", "LDG.E.128", "R4, [R2.64]"),  # the loop's head
    Instruction(0x20, "@P0", "BRA", "0x50"),  # past the adding of a run
    Instruction(0x30, "", "RED.E.ADD", "[R6.64], R7"),
    Instruction(0x40, "@P0", "BRA", "0x30"),  # a loop inside that
    Instruction(0x50, "", "STG.E.128", "[R8.64], R4"),
    Instruction(0x60, "@P0", "BRA", "0x10"),
    Instruction(0x70, "", "EXIT", ""),
]


def test_it_leaves_out_what_a_branch_skips() -> None:
    path = shortest_loop(LOOP, 6, LOOP[6].target)
    assert [i.address for i in path] == [0x10, 0x20, 0x50, 0x60]


def test_it_stays_in_the_loop_and_a_forward_branch_is_none() -> None:
    assert [i.address for i in shortest_loop(LOOP, 4, LOOP[4].target)] == [0x30, 0x40]
    assert shortest_loop(LOOP, 2, LOOP[2].target) == []
    assert shortest_loop(LOOP, 5, LOOP[5].target) == []


def test_an_unconditional_branch_is_followed() -> None:
    always = [*LOOP]
    always[2] = Instruction(0x20, "", "BRA", "0x30")
    path = shortest_loop(always, 6, LOOP[6].target)
    assert [i.address for i in path] == [0x10, 0x20, 0x30, 0x40, 0x50, 0x60]


def test_what_comes_before_an_operation_is_on_some_way_to_it() -> None:
    """A branch around it leads to what it leaves out; conditions may be operands, too."""
    lines = [
        Instruction(0x00, "", "S2R", "R1, SR_TID.X"),
        Instruction(0x10, "", "BRA.U", "UP0, 0x40"),
        Instruction(0x20, "", "ACQBULK", ""),
        Instruction(0x30, "", "LDG.E", "R2, [R4.64]"),
        Instruction(0x40, "", "STG.E", "[R4.64], R2"),
        Instruction(0x50, "", "EXIT", ""),
    ]
    before = reached_without("ACQBULK", lines)
    assert [i.address for i in before] == [0x00, 0x10, 0x40, 0x50]
    always = [*lines]
    always[1] = Instruction(0x10, "@P0", "EXIT", "")
    assert [i.address for i in reached_without("ACQBULK", always)] == [0x00, 0x10]
    always[1] = Instruction(0x10, "", "BRX", "R2 -0x20")
    with pytest.raises(ValueError, match="leads elsewhere"):
        reached_without("ACQBULK", always)
