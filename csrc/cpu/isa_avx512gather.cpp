// The kernels for AVX-512 with fast gathers, which look f of the 16-bit dtypes up in a table.
#include "activation/act_mul_count.h"
#include "dispatch.h"
#include "experts/weighted_sum.h"
#include "vec/avx512.h"

namespace sparcom {

const Kernels avx512gather_kernels = {"avx512gather", act_mul_count_tile<Avx512Gather>,
                                      2 * Avx512Gather::lanes, true,
                                      weighted_sum_of<Avx512Gather>};

}  // namespace sparcom
