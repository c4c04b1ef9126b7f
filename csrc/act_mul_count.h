// act_mul_count: what every backend (CPU, CUDA, emulation) computes.
//
//   h[r, i]             = round(f(gate[r, i])) * up[r, i]          (ungated: round(f(gate[r, i])))
//   out[r, i]           = h[r, i] * keep[expert[r], i] + fill[expert[r], i]     (each optional)
//   counts[bins[r], i] += x in counted,  x = gate[r, i] or h[r, i]    (bins[r] == -1: not counted)
//   rows[bins[r]]      += 1
//
// Every result of + and * is rounded to the dtype, as separate torch operations would round it.
//
// `counted` is the set {x : f(x) > threshold} as ranges of bit patterns. So a threshold becomes
// integer comparisons of the exact gate, and no approximated f is ever compared. NaN lies in no
// range. See counted_ranges.h.
#pragma once

#include <cstdint>

namespace sparcom {

enum class Dtype : int { fp32 = 0, bf16 = 1, fp16 = 2 };
enum class Activation : int { silu = 0, gelu = 1, gelu_tanh = 2, relu = 3, relu2 = 4 };
enum class Signal : int { gate = 0, product = 1 };

// Bit patterns [first, first + size) of the dtype; an unused range has size 0.
struct Ranges {
  static constexpr int max = 3;
  int n;  // 1: only range 0 is used, the fast case
  uint32_t first[max];
  uint32_t size[max];
};

// Filled by name, in one place: bindings/call.h.
struct ActMulCount {
  // The rows.
  const void* gate;  // [n_rows, width], row stride gate_stride
  const void* up;    // [n_rows, width], row stride up_stride; null: ungated
  void* out;         // [n_rows, width], row stride width
  int64_t n_rows, width, gate_stride, up_stride;  // in elements
  Dtype dtype;                                    // of gate, up, out, keep and fill

  // f.
  Activation activation;

  // Where and when a row counts.
  const int32_t* bins;  // [n_rows]
  int32_t* counts;      // [n_bins, width]
  int32_t* rows;        // [n_bins]
  int64_t n_bins;
  Signal signal;
  double threshold;
  Ranges counted;  // counted_ranges() of the activation, the signal and the threshold

  // Ablation.
  const void* keep;       // [n_experts, width] or null
  const void* fill;       // [n_experts, width] or null
  const int32_t* expert;  // [n_rows] or null: all 0
  int64_t n_experts;
};

inline int64_t element_size(Dtype dtype) { return dtype == Dtype::fp32 ? 4 : 2; }

}  // namespace sparcom
