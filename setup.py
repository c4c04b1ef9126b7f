"""Builds the native parts: `sparcom._native` (CPU) always, `sparcom._native_cuda` where nvcc is.

Metadata lives in pyproject.toml. Needs pybind11 and a C++17 compiler, not torch.
"""

from __future__ import annotations

import glob
import platform

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext

ISA_FLAGS = {
    "isa_avx2.cpp": ["-mavx2", "-mfma", "-mf16c", "-mbmi2"],
    "isa_avx512.cpp": [
        "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c", "-mbmi2",
        # GCC 12 warns about its own intrinsics (bug 105593).
        "-Wno-uninitialized", "-Wno-maybe-uninitialized",
    ],
}  # fmt: skip
ISA_FILES = {
    "x86_64": ["isa_avx2", "isa_avx512"],
    "AMD64": ["isa_avx2", "isa_avx512"],
    "aarch64": ["isa_neon"],
    "arm64": ["isa_neon"],
}

CPU_SOURCES = [
    "csrc/bindings.cpp",
    "csrc/check.cpp",
    "csrc/counted.cpp",
    "csrc/cpu/dispatch.cpp",
    "csrc/cpu/launch.cpp",
    "csrc/cpu/parallel.cpp",
    "csrc/cpu/isa_portable.cpp",
    *(f"csrc/cpu/{name}.cpp" for name in ISA_FILES.get(platform.machine(), [])),
]


class BuildExt(build_ext):
    """build_ext that gives each isa_*.cpp the flags of its instruction set, and nobody else."""

    def build_extension(self, ext) -> None:
        compile_one = self.compiler._compile

        def compile_with_isa(obj, src, extension, cc_args, extra_postargs, pp_opts) -> None:
            flags = ISA_FLAGS.get(src.rsplit("/", 1)[-1], [])
            compile_one(obj, src, extension, cc_args, [*extra_postargs, *flags], pp_opts)

        self.compiler._compile = compile_with_isa
        try:
            super().build_extension(ext)
        finally:
            self.compiler._compile = compile_one


setup(
    package_dir={"": "python"},
    ext_modules=[
        Pybind11Extension(
            "sparcom._native",
            CPU_SOURCES,
            depends=sorted(glob.glob("csrc/**/*.h", recursive=True)),
            cxx_std=17,
            extra_compile_args=["-O3", "-fno-math-errno", "-ffp-contract=off"],
        )
    ],
    cmdclass={"build_ext": BuildExt},
)
