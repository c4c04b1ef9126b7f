"""Builds the native parts: `sparcom._native` (CPU) always, `sparcom._native_cuda` if there is nvcc.

Metadata is in pyproject.toml. The build needs pybind11 and a C++17 compiler, not torch. It reads
SPARCOM_CUDA (1: fail without nvcc; 0: no CUDA part), SPARCOM_CUDA_ARCHITECTURES ("80 90 100 120")
and SPARCOM_BUILD_JOBS.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import platform
import re
import shutil
import subprocess

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext

# GCC 12 warns about its own intrinsics (bug 105593).
GCC_12 = ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]
AVX512 = [
    "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c", *GCC_12,
]  # fmt: skip
ISA_FLAGS = {
    "isa_portable.cpp": ["-Wno-psabi"],
    "isa_avx2.cpp": ["-mavx2", "-mfma", "-mf16c", "-mpopcnt"],
    "isa_avx512.cpp": AVX512,
    "isa_avx512gather.cpp": AVX512,
    "isa_amx.cpp": ["-mavx512f", "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
    "isa_avx512popcnt.cpp": [
        "-mavx512f", "-mavx512bw", "-mavx512vpopcntdq", "-mavx512vbmi2", "-mpopcnt", *GCC_12,
    ],
}  # fmt: skip
X86 = ["isa_avx2", "isa_avx512", "isa_avx512gather", "bits/isa_avx512popcnt", "experts/isa_amx"]
ISA_FILES = {"x86_64": X86, "AMD64": X86, "aarch64": ["isa_neon"], "arm64": ["isa_neon"]}

CPU_SOURCES = [
    "csrc/bindings/native.cpp",
    "csrc/check.cpp",
    "csrc/counted_ranges.cpp",
    "csrc/cpu/dispatch.cpp",
    "csrc/cpu/parallel.cpp",
    "csrc/cpu/activation/launcher.cpp",
    "csrc/cpu/activation/table.cpp",
    "csrc/cpu/bits/intersections.cpp",
    "csrc/cpu/bits/select.cpp",
    "csrc/cpu/experts/route.cpp",
    "csrc/cpu/experts/weighted_sum.cpp",
    "csrc/cpu/isa_portable.cpp",
    *(f"csrc/cpu/{name}.cpp" for name in ISA_FILES.get(platform.machine(), [])),
]

CUDA_SOURCES = [
    "csrc/check.cpp",
    "csrc/counted_ranges.cpp",
    "csrc/cuda/act_mul_count.cu",
    "csrc/bindings/native_cuda.cpp",
]
# a * b + c is fused only where the source says so, as on CPU and in the emulation.
NVCC_FLAGS = ["-std=c++17", "-O3", "--fmad=false", "--threads=2", "-Xcompiler=-fPIC"]


def find_nvcc() -> str | None:
    """The nvcc to build with; None: no CUDA part. Exits if it is required but missing."""
    wanted = os.environ.get("SPARCOM_CUDA", "")
    if wanted not in ("", "0", "1"):
        raise SystemExit(f"setup.py: SPARCOM_CUDA must be 0, 1 or unset, got {wanted!r}")
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    wheels = importlib.util.find_spec("nvidia")  # PyPI's toolkit: requirements/cuda.txt
    folders = [
        *(f"{home}/bin" for home in homes),
        os.environ.get("PATH", ""),
        *(f"{folder}/cu13/bin" for folder in (wheels.submodule_search_locations if wheels else ())),
    ]
    nvcc = shutil.which("nvcc", path=os.pathsep.join(folders))
    if wanted == "1" and nvcc is None:
        raise SystemExit("setup.py: SPARCOM_CUDA=1 needs nvcc, found none; set CUDA_HOME")
    return None if wanted == "0" else nvcc


def cuda_architectures(nvcc: str) -> list[str]:
    """The wanted compute capabilities that nvcc can build for. Exits if there is none."""
    known = subprocess.check_output([nvcc, "--list-gpu-code"], text=True).split()
    wanted = os.environ.get("SPARCOM_CUDA_ARCHITECTURES", "80 90 100 120").split()
    found = [a for a in wanted if f"sm_{a}" in known]
    if not found:
        raise SystemExit(f"setup.py: {nvcc} builds for {' '.join(known)}, not for sm_{wanted}")
    return found


def cudart_folder(nvcc: str) -> str:
    """The folder of this nvcc's libcudart_static.a. Exits if there is none."""
    dry = subprocess.run(
        [nvcc, "--dryrun", "-x", "cu", "/dev/null"], capture_output=True, text=True
    ).stderr
    top = re.search(r"TOP=(\S+)", dry)
    found = top and sorted(glob.glob(f"{top[1]}/**/libcudart_static.a", recursive=True))
    if not found:
        raise SystemExit(f"setup.py: no libcudart_static.a beside {nvcc}; install the CUDA runtime")
    return os.path.dirname(found[0])


def nvcc_command(nvcc: str, architectures: list[str]) -> list[str]:
    """nvcc for machine code of each architecture, and PTX of the newest for later ones."""
    newest = architectures[-1]
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
    return [nvcc, *NVCC_FLAGS, *codes, f"-gencode=arch=compute_{newest},code=compute_{newest}"]


def cuda_extension(nvcc: str) -> Pybind11Extension:
    """sparcom._native_cuda, with cudart inside, so that it imports without a driver."""
    names = '"' + " ".join(cuda_architectures(nvcc)) + '"'
    return Pybind11Extension(
        "sparcom._native_cuda",
        CUDA_SOURCES,
        depends=["setup.py", *sorted(glob.glob("csrc/**/*.h", recursive=True))],
        cxx_std=17,
        define_macros=[("SPARCOM_CUDA_ARCHITECTURES", names)],
        extra_compile_args=["-O3", "-ffp-contract=off"],
        library_dirs=[cudart_folder(nvcc)],
        libraries=["cudart_static", "dl", "rt", "pthread"],
        extra_link_args=["-Wl,--exclude-libs,ALL"],  # so that torch never calls this cudart
    )


NVCC = find_nvcc()


class BuildExt(build_ext):
    """build_ext that gives each isa_*.cpp its flags and compiles *.cu with nvcc."""

    def build_extension(self, ext) -> None:
        compile_one = self.compiler._compile

        if ".cu" not in self.compiler.src_extensions:
            self.compiler.src_extensions.append(".cu")

        def compile_with_isa(obj, src, extension, cc_args, extra_postargs, pp_opts) -> None:
            if src.endswith(".cu"):
                command = nvcc_command(NVCC, cuda_architectures(NVCC))
                self.compiler.spawn([*command, "-c", src, "-o", obj])
                return
            flags = ISA_FLAGS.get(src.rsplit("/", 1)[-1], [])
            compile_one(obj, src, extension, cc_args, [*extra_postargs, *flags], pp_opts)

        self.compiler._compile = compile_with_isa
        try:
            super().build_extension(ext)
        finally:
            self.compiler._compile = compile_one


ParallelCompile("SPARCOM_BUILD_JOBS", default=0).install()

setup(
    package_dir={"": "python"},
    ext_modules=[
        Pybind11Extension(
            "sparcom._native",
            CPU_SOURCES,
            depends=sorted(glob.glob("csrc/**/*.h", recursive=True)),
            cxx_std=17,
            extra_compile_args=["-O3", "-fno-math-errno", "-ffp-contract=off"],
        ),
        *([cuda_extension(NVCC)] if NVCC else []),
    ],
    cmdclass={"build_ext": BuildExt},
)
