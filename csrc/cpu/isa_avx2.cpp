// The kernels for avx2. setup.py compiles this file, and no other, with the flags it needs.
#include "act_mul_count.h"
#include "dispatch.h"
#include "vec_avx2.h"

namespace sparcom {

const Kernels avx2_kernels = {"avx2", act_mul_count_tile<Avx2>, 2 * Avx2::lanes};

}  // namespace sparcom
