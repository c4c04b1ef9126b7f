// The kernels for NEON. Its bit kernels are the portable ones: the compiler turns them into NEON's
// cnt.
#include "activation/act_mul_count.h"
#include "dispatch.h"
#include "experts/weighted_sum.h"
#include "vec/neon.h"

namespace sparcom {

const Kernels neon_kernels = {"neon", act_mul_count_tile<Neon>, 2 * Neon::lanes, false,
                              weighted_sum_of<Neon>};

}  // namespace sparcom
