#include "dispatch.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "bits/bits.h"

namespace sparcom {
namespace {

#if defined(__x86_64__)
// Gathers are slow on AMD up to Zen 5, and on Intel before Sapphire Rapids, whose microcode guards
// them (Downfall). Processors with fast ones have FP16 arithmetic: leaf 7, EDX, bit 23.
bool has_fast_gathers() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 23 & 1);
}
#endif

// Best first.
std::vector<const Kernels*> available() {
  std::vector<const Kernels*> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    if (has_fast_gathers()) found.push_back(&avx512gather_kernels);
    found.push_back(&avx512_kernels);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c"))
    found.push_back(&avx2_kernels);
#elif defined(__aarch64__)
  found.push_back(&neon_kernels);
#endif
  found.push_back(&portable_kernels);
  return found;
}

const Kernels& choose() {
  const auto found = available();
  const char* const wanted = std::getenv("SPARCOM_ISA");
  if (!wanted || !*wanted) return *found.front();
  std::string names;
  for (const Kernels* k : found) {
    if (k->isa == std::string(wanted)) return *k;
    names += (names.empty() ? "" : ", ") + std::string(k->isa);
  }
  throw std::runtime_error("SPARCOM_ISA must be one of " + names + " on this machine, got " +
                           wanted + "; unset it to use " + found.front()->isa);
}

// The bit kernels of the chosen set. Those of AVX-512 need VPOPCNTDQ and VBMI2.
const BitKernels& choose_bits() {
#if defined(__x86_64__)
  const std::string isa = kernels().isa;
  if (isa.rfind("avx512", 0) == 0 && __builtin_cpu_supports("avx512vpopcntdq") &&
      __builtin_cpu_supports("avx512vbmi2"))
    return avx512_bit_kernels;
  if (isa != "portable") return avx2_bit_kernels;
#endif
  return portable_bit_kernels;
}

}  // namespace

const BitKernels& bit_kernels() {
  static const BitKernels& chosen = choose_bits();
  return chosen;
}

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace sparcom
