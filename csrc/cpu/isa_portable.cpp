// The kernels for any machine. setup.py compiles only this file with the flags it needs.
#include "activation/act_mul_count.h"
#include "bits/bits.h"
#include "bits/portable.h"
#include "dispatch.h"
#include "experts/weighted_sum.h"
#include "vec/portable.h"

namespace sparcom {

const Kernels portable_kernels = {"portable", act_mul_count_tile<Portable>, 2 * Portable::lanes,
                                  false, weighted_sum_of<Portable>};
const BitKernels portable_bit_kernels = {"portable", PortableBits::narrow, PortableBits::at_least,
                                         PortableBits::and_counts};

}  // namespace sparcom
