// The kernels for portable. setup.py compiles this file, and no other, with the flags it needs.
#include "act_mul_count.h"
#include "dispatch.h"
#include "vec_portable.h"

namespace sparcom {

const Kernels portable_kernels = {"portable", act_mul_count_tile<Portable>, 2 * Portable::lanes};

}  // namespace sparcom
