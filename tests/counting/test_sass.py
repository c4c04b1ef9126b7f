"""The machine code of the CUDA kernel: no spills, no stack, accesses of 16 bytes.

It is read from sparcom._native_cuda, for each of its architectures. `make test` builds that with
the machine's nvcc or PyPI's (requirements/cuda.txt). If there is neither, these tests skip.
"""

import collections
import re

import pytest

import sass
from sparcom import native

# With more registers, fewer blocks are resident than csrc/cuda/launch.h assumes: 65536 / (7 * 128).
MOST_REGISTERS = 72
# For each dtype: one kernel for each activation without parameters and kind of call, two (without
# and with signs) for each activation with parameters, and two without alignment.
KERNELS = 3 * (5 * 5 + 2 * 3 + 2)
# Of act_mul_count_quant, for bf16 and fp16, to fp8 and int8: silu and all else, with signs or not.
QUANT_KERNELS = 2 * 2 * 2 * 2
FORBIDDEN = re.compile(r"(LDL|STL|LDS|STS|ATOMS|BAR|SHFL|VOTE|REDUX)\b")
MEMORY = re.compile(r"(LD|ST|LDG|STG|LDL|STL|RED|REDG|ATOM|ATOMG)\b")
ARCHITECTURES = ["sm_80", "sm_90", "sm_100", "sm_120"]
WIDE = ("sm_100", "sm_120")  # those that move 32 bytes at once

pytestmark = pytest.mark.skipif(bool(sass.missing()), reason=sass.missing())


def is_quant(name: str) -> bool:
    return "act_mul_count_quant" in name


def require(architecture: str) -> str:
    """Skip if the CUDA part is built without an architecture."""
    if architecture not in sass.usage():
        pytest.skip(f"built for {', '.join(sass.usage())} only")
    return architecture


def is_vector(name: str) -> bool:
    """True if a kernel's mangled name has more than one element and a fixed activation."""
    return "Li1ELin1E" not in name


def test_every_architecture_has_every_kernel() -> None:
    found = sass.usage()
    asked = native._cuda.info()["cuda_architectures"].split()
    assert sorted(found) == sorted(f"sm_{a}" for a in asked)
    for kernels in found.values():
        quantising = sum(map(is_quant, kernels))
        assert (len(kernels) - quantising, quantising) == (KERNELS, QUANT_KERNELS)


def test_no_spills_no_stack_and_few_registers() -> None:
    """A spill is in local memory, and local memory on the stack."""
    for architecture, kernels in sass.usage().items():
        for name, used in kernels.items():
            assert used["STACK"] == used["LOCAL"] == used["SHARED"] == 0, (architecture, name, used)
            assert used["REG"] <= MOST_REGISTERS, (architecture, name, used)


def widths(codes: list[str], prefix: str) -> collections.Counter[int]:
    """Bits of an access -> how many of those that start so have them."""
    found = (re.search(r"\.(16|64|128|256)\b", c) for c in codes if c.startswith(prefix))
    return collections.Counter(int(match[1]) if match else 32 for match in found)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_vectors_are_16_bytes_and_threads_share_adds_alone(architecture: str) -> None:
    """Gate, up and out move in 128 bits; no local or shared memory, no barrier, no shuffle.

    In 256, too, on architectures that can: usual calls of fp32, and gate and up that take turns.
    """
    kernels = sass.instructions(require(architecture))
    kernels = {n: c for n, c in kernels.items() if not is_quant(n)}
    assert len(kernels) == KERNELS
    for name, codes in kernels.items():
        loads, stores = widths(codes, "LDG"), widths(codes, "STG")
        least = 1 if "CallE1E" in name else 2  # Call::ungated has no up
        usual = not re.search("CallE[24]E", name)  # the others may have gate and up in turns
        if not is_vector(name):
            assert stores, name
            assert not stores.keys() & {128, 256}, name
            assert not loads.keys() & {128, 256}, name
        elif architecture in WIDE and usual and "act_mul_countIf" in name:
            assert stores.keys() == {128, 256}, name
            assert min(loads[128], loads[256]) >= least, name
        else:
            assert stores.keys() == {128}, name
            assert loads[128] >= least, name
            assert (loads[256] > 0) == (architecture in WIDE and not usual), name
        assert not [c for c in codes if FORBIDDEN.match(c)], name
        assert any(c.startswith(("RED", "ATOMG")) for c in codes), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_access_comes_before_the_wait_for_earlier_kernels(architecture: str) -> None:
    """Programmatic dependent launch, on sm_90 and later: griddepcontrol.wait is ACQBULK; after it
    comes griddepcontrol.launch_dependents, PREEXIT."""
    for name, lines in sass.code(require(architecture)).items():
        codes = [line.operation for line in lines]
        if architecture == "sm_80":
            assert not {"ACQBULK", "PREEXIT"} & set(codes), name
            continue
        assert {"ACQBULK", "PREEXIT"} <= set(codes), name
        before = [line.operation for line in sass.reached_without("ACQBULK", lines)]
        assert not [c for c in before if MEMORY.match(c) or c == "PREEXIT"], name
        assert any(c.startswith("S2R") for c in before), name  # first, who the thread is
        # Such a load says that nothing is written while the kernel lasts; the one before may write.
        assert not [c for c in codes if c.startswith("LDG") and "CONSTANT" in c], name


def test_what_later_devices_translate_waits_too() -> None:
    """The launcher goes by the compute capability of the PTX: code for 9.0 and later waits."""
    (found,) = sass.ptx().items()
    capability, kernels = found
    assert capability == max(int(a) for a in native._cuda.info()["cuda_architectures"].split())
    assert len(kernels) == KERNELS + QUANT_KERNELS
    for name, text in kernels.items():
        wait = text.find("griddepcontrol.wait;")
        assert (wait > 0) == (capability >= 90), name
        assert "griddepcontrol.launch_dependents;" not in text[: max(wait, 0)], name
        assert not re.search(r"\b(ld|st|red|atom)\.global", text[: max(wait, 0)]), name


@pytest.mark.parametrize("architecture", WIDE)
def test_a_thread_with_32_bytes_of_floats_issues_less_for_each(architecture: str) -> None:
    """Why fp32 has 8 columns a thread: with 4, instructions take longer than the bytes (B200)."""
    narrow, wide = (
        sass.instructions_per_element(require(architecture), 4, access) for access in (16, 32)
    )
    assert wide < 0.97 * narrow


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_quantised_rows_are_8_bytes_and_warps_share_shuffles(architecture: str) -> None:
    """Gate and up come in 128 bits, q leaves in 64; no memory is shared. Only sm_80 has no
    instruction for fp8."""
    kernels = sass.instructions(require(architecture))
    kernels = {n: c for n, c in kernels.items() if is_quant(n)}
    assert len(kernels) == QUANT_KERNELS
    for name, codes in kernels.items():
        stores = [c for c in codes if c.startswith("STG")]
        assert {c.endswith(".64") for c in stores} == {True, False}, name  # q, and scales
        assert not [c for c in stores if c.endswith(".128")], name
        assert sum(c.startswith("LDG") and c.endswith(".128") for c in codes) >= 2, name
        shuffles = [c for c in codes if c.startswith("SHFL")]
        assert {c.split(".")[1] for c in shuffles} == {"BFLY"}, name
        assert not [c for c in codes if FORBIDDEN.match(c) and not c.startswith("SHFL")], name
        in_hardware = any("E4M3" in c for c in codes)
        assert in_hardware == (architecture != "sm_80" and "QuantisedE0" in name), name
