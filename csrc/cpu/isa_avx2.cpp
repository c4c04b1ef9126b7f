// The kernels for AVX2. setup.py compiles only this file with the flags it needs.
#include "activation/act_mul_count.h"
#include "bits/avx2.h"
#include "bits/bits.h"
#include "dispatch.h"
#include "experts/weighted_sum.h"
#include "vec/avx2.h"

namespace sparcom {

const Kernels avx2_kernels = {"avx2", act_mul_count_tile<Avx2>, 2 * Avx2::lanes, false,
                              weighted_sum_of<Avx2>};
const BitKernels avx2_bit_kernels = {"avx2", Avx2Bits::narrow, Avx2Bits::at_least,
                                     Avx2Bits::and_counts};

}  // namespace sparcom
