// What act_mul_count requires of memory and indices, on every backend. Python checks shapes, dtypes
// and devices, where tensors have names: counting/ops.py.
#pragma once

#include "act_mul_count.h"
#include "act_mul_count_quant.h"

namespace sparcom {

// Requires a finite threshold, memory aligned to its elements, and that nothing written overlaps
// anything else. Throws std::invalid_argument: what was expected, what came, what to do.
void check(const ActMulCount& p);

// The same of act_mul_count_quant on CUDA: also 16 bits, whole groups, and 16 bytes at a time.
void check(const ActMulCount& p, const Quant& to);

// With signs, requires up, the signal of the gate and the threshold 0; `check` does so too.
void check_signs(const ActMulCount& p, bool gated);

// Requires every bin in [-1, n_bins) and every expert in [0, n_experts). It reads them, so only in
// host memory. The CUDA kernel must not wait for such an answer: it leaves a row with another bin
// uncounted, so that `rows` shows it.
void check_indices(const ActMulCount& p);

}  // namespace sparcom
