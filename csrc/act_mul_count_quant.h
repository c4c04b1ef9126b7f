// act_mul_count_quant: act_mul_count whose result leaves as 8-bit numbers, 128 columns to a scale.
//
//   h[r, i], counts, rows, signs: those of act_mul_count, and h[r, i] takes keep and fill, too
//   m            = max(eps, max of |h[r, i]|, 128 g <= i < 128 g + 128),      eps = 1e-10
//   scales[r, g] = m / largest               (ue8m0: the power of two at or above it, and 1e-10)
//   q[r, i]      = round(h[r, i] / scales[r, g]),                             i in group g
//
// largest: 448 of fp8 (e4m3fn), 127 of int8. Every step is an fp32 operation that is rounded to
// nearest even, on an h that was rounded to its 16 bits before. NaN in a group makes its scale NaN;
// an infinity makes it infinite. q of NaN is NaN in fp8, 0 in int8.
//
// Rows may be grouped by expert: expert[r] says whose a row is, and below 0 that it is padding, which
// is neither counted nor written.
#pragma once

#include "act_mul_count.h"

namespace sparcom {

enum class Quantised : int { fp8 = 0, int8 = 1 };

constexpr int64_t quant_group = 128;
constexpr float quant_eps = 1e-10f;

// Where the quantised rows of an ActMulCount go; its `out` is q, [n_rows, width] of one byte each.
struct Quant {
  float* scales;  // [n_rows, width / quant_group]
  int64_t row_stride, group_stride;  // of scales, in elements
  Quantised dtype;
  bool ue8m0;
};

}  // namespace sparcom
