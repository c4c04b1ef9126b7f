// Which instruction set runs: one table of kernels per set, chosen once per process.
#pragma once

#include <cstdint>

#include "../act_mul_count.h"

namespace sparcom {

struct Tile;
struct WeightedSum;

struct Kernels {
  const char* isa;
  void (*act_mul_count_tile)(const ActMulCount&, const Tile&);
  int64_t block;  // elements; tiles begin at multiples of it
  bool looks_up;  // f of 16-bit dtypes comes from a table
  void (*weighted_sum)(const WeightedSum&, int64_t first_token, int64_t end_token);
};

struct BitKernels;

extern const Kernels portable_kernels;
extern const BitKernels portable_bit_kernels;
#if defined(__x86_64__)
extern const Kernels avx2_kernels, avx512_kernels, avx512gather_kernels;
extern const BitKernels avx2_bit_kernels, avx512_bit_kernels;
#elif defined(__aarch64__)
extern const Kernels neon_kernels;
#endif

// The best set that this machine has. SPARCOM_ISA=portable|avx2|avx512|avx512gather|neon overrides
// it; a set that is unknown or that the machine lacks is a std::runtime_error that names those it
// has.
const Kernels& kernels();
const BitKernels& bit_kernels();

}  // namespace sparcom
