// The kernels for AVX-512. setup.py compiles only this file with the flags it needs.
#include "activation/act_mul_count.h"
#include "dispatch.h"
#include "experts/weighted_sum.h"
#include "vec/avx512.h"

namespace sparcom {

const Kernels avx512_kernels = {"avx512", act_mul_count_tile<Avx512>, 2 * Avx512::lanes, false,
                                weighted_sum_of<Avx512>};

}  // namespace sparcom
