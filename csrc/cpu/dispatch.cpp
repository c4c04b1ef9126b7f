#include "dispatch.h"
#include "bits.h"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

namespace sparcom {
namespace {

// Best first.
std::vector<const Kernels*> available() {
  std::vector<const Kernels*> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    found.push_back(&avx512_kernels);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c"))
    found.push_back(&avx2_kernels);
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

// The bit kernels that go with a set. Those of AVX-512 need VPOPCNTDQ and VBMI2.
const BitKernels& choose_bits() {
#if defined(__x86_64__)
  const std::string isa = kernels().isa;
  if (isa == "avx512" && __builtin_cpu_supports("avx512vpopcntdq") &&
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
