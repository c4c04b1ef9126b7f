// What act_mul_count demands of memory and indices, for every backend. Shapes, dtypes and devices
// are checked in counting/ops.py, where tensors have names.
#pragma once

#include "act_mul_count.h"

namespace sparcom {

// Alignment to the element, no overlap of what is written with anything else, a finite threshold.
// Throws std::invalid_argument: what was expected, what came, what to do.
void check(const ActMulCount& p);

// Every bin in [-1, n_bins), every expert in [0, n_experts). Reads them: host memory only. The CUDA
// kernel, which must not wait for such an answer, leaves rows with other bins uncounted instead, so
// that `rows` shows them.
void check_indices(const ActMulCount& p);

}  // namespace sparcom
