"""The shortest way round a loop of machine code, which the roofline's figure is counted from."""

from sass import Instruction, shortest_loop

LOOP = [
    Instruction(0x00, False, "MOV", "R1, R2"),
    Instruction(0x10, False, "LDG.E.128", "R4, [R2.64]"),  # the loop's head
    Instruction(0x20, True, "BRA", "0x50"),  # past the adding of a run
    Instruction(0x30, False, "RED.E.ADD", "[R6.64], R7"),
    Instruction(0x40, True, "BRA", "0x30"),  # a loop inside that
    Instruction(0x50, False, "STG.E.128", "[R8.64], R4"),
    Instruction(0x60, True, "BRA", "0x10"),
    Instruction(0x70, False, "EXIT", ""),
]


def test_it_goes_past_what_a_branch_skips() -> None:
    way = shortest_loop(LOOP, 6, LOOP[6].target)
    assert [i.address for i in way] == [0x10, 0x20, 0x50, 0x60]


def test_it_keeps_within_the_loop_and_takes_no_forward_branch_for_one() -> None:
    assert [i.address for i in shortest_loop(LOOP, 4, LOOP[4].target)] == [0x30, 0x40]
    assert shortest_loop(LOOP, 2, LOOP[2].target) == []
    assert shortest_loop(LOOP, 5, LOOP[5].target) == []


def test_a_branch_that_is_always_taken_is_followed() -> None:
    always = [*LOOP]
    always[2] = Instruction(0x20, False, "BRA", "0x30")
    way = shortest_loop(always, 6, LOOP[6].target)
    assert [i.address for i in way] == [0x10, 0x20, 0x30, 0x40, 0x50, 0x60]
