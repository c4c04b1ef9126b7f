// Which instruction set runs: each set has a table of kernels, and one is chosen per process.
#pragma once

#include <cstdint>

#include "../act_mul_count.h"

namespace sparcom {

struct WeightedSum;

// The part of an act_mul_count that one thread computes at a time (activation/act_mul_count.h).
struct Tile {
  int64_t row_begin, row_end, col_begin, col_end;
  uint8_t* locks;      // n_locks of them if other tiles may add to the same counters, else null
  bool count_rows;     // this tile also adds to `rows`
  const float* table;  // round(f), if the instruction set looks it up
  bool stream;         // store past the caches
};

constexpr int64_t n_locks = 64;

struct Kernels {
  const char* isa;
  void (*act_mul_count_tile)(const ActMulCount&, const Tile&);
  int64_t block;  // in elements; tiles begin at multiples of it
  bool looks_up;  // f of the 16-bit dtypes comes from a table
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
// it. Throws std::runtime_error, which names the sets of this machine, if it lacks the one asked
// for.
const Kernels& kernels();
const BitKernels& bit_kernels();

}  // namespace sparcom
