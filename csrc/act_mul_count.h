// act_mul_count: what every backend (CPU, CUDA, emulation) computes.
//
//   h[r, i]             = round(f(gate[r, i])) * u(up[r, i])       (ungated: round(f(gate[r, i])))
//   out[r, i]           = h[r, i] * keep[expert[r], i] + fill[expert[r], i]     (each optional)
//   counts[bins[r], i] += x in counted,  x = gate[r, i] or h[r, i]    (bins[r] == -1: not counted)
//   rows[bins[r]]      += 1
//   signs[0, bins[r], i] += up[r, i] > 0                           (optional, of gated rows alone)
//   signs[1, bins[r], i] += gate[r, i] > 0 and up[r, i] > 0
//
// Every result of + and * is rounded to the dtype, as separate torch operations would round it.
// u(up) is up, but for the activations that shape it too (`Parameters`); it is rounded then.
//
// `counted` is the set {x : f(x) > threshold} as ranges of bit patterns. So a threshold becomes
// integer comparisons of the exact gate, and no approximated f is ever compared. NaN lies in no
// range. See counted_ranges.h. With `signs`, the gate alone decides and the threshold is 0, so that
// `counted` is the positive numbers; up is compared with the same range, before u shapes it.
#pragma once

#include <cstdint>

namespace sparcom {

enum class Dtype : int { fp32 = 0, bf16 = 1, fp16 = 2 };
enum class Activation : int {
  silu = 0, gelu = 1, gelu_tanh = 2, relu = 3, relu2 = 4, swiglu = 5, swiglu_step = 6, situ = 7
};
enum class Signal : int { gate = 0, product = 1 };

// Of the activations that have any; the others ignore them. All keep the sign of the gate.
//
//   swiglu       f(g) = y / (1 + e^(-alpha y)), y = min(g, limit);    u(x) = clamp(x) + beta
//   swiglu_step  f(g) = min(silu(g), limit);                          u(x) = clamp(x)
//   situ         f(g) = beta tanh(g / beta) / (1 + e^-g);    u(x) = linear_beta tanh(x / linear_beta)
//
// clamp(x) = max(-limit, min(limit, x)). limit may be infinite; linear_beta = 0 leaves x as it is.
struct Parameters {
  float limit, alpha, beta, linear_beta;
};

constexpr bool shapes_up(Activation a) { return a >= Activation::swiglu; }

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
  const void* gate;  // [n_rows, width], strides gate_stride and step
  const void* up;    // [n_rows, width], strides up_stride and step; null: ungated
  void* out;         // [n_rows, width], row stride width
  int64_t n_rows, width, gate_stride, up_stride;  // in elements
  int64_t step;  // 1; or 2: gate and up take turns in a row, gate first
  Dtype dtype;                                    // of gate, up, out, keep and fill

  // f.
  Activation activation;
  Parameters parameters;

  // Where and when a row counts.
  const int32_t* bins;  // [n_rows]
  int32_t* counts;      // [n_bins, width]
  int32_t* rows;        // [n_bins]
  int32_t* signs;       // [2, n_bins, width] or null
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
