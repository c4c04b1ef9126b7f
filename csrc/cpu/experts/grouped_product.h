// Products of grouped rows, each group with a matrix of its own, on AMX (bf16).
//
//   out[r, :] = x[r, :] @ weight[g], begin[g] <= r < begin[g + 1]          sums in fp32
//
// The result of a row depends on the row alone: whatever the size of its group, the sum over the
// inputs has one order.
#pragma once

#include <cstdint>

#include "../../act_mul_count.h"

namespace sparcom {

struct GroupedProduct {
  const uint16_t* x;       // [rows, inputs] bf16
  const uint16_t* weight;  // [groups, outputs / 16, inputs / 32, 16, 16, 2], by grouped.pack
  uint16_t* out;           // [rows, outputs] bf16
  const int64_t* begin;    // [groups + 1] rows
  int64_t groups, inputs, outputs;  // inputs and outputs are multiples of 32
};

// Whole routed experts. Row r is token[r] in expert e, begin[e] <= r < begin[e + 1]:
//
//   y[r, :] = down[e](h),  h = round(f(gate)) * up,  (gate, up) = gate_up[e](x[token[r]])
//
// and h is counted as in act_mul_count. The result equals, bit for bit, that of gathering the rows
// and of two grouped_products with an act_mul_count between them. Here 32 rows at a time pass
// through all steps, so that nothing between x and y leaves the second-level cache. This pays if
// that cache holds an expert's weights, which are read once for every 32 rows.
struct RoutedExperts {
  const uint16_t* x;        // [tokens, hidden] bf16
  const int64_t* token;     // [rows]
  const int64_t* begin;     // [experts + 1] rows
  const uint16_t* gate_up;  // [experts, outputs, hidden], packed; outputs: 2 width; ungated: width
  const uint16_t* down;     // [experts, hidden, width], packed
  uint16_t* y;              // [rows, hidden] bf16
  int64_t tokens, experts, hidden, outputs;  // the experts of this worker
  ActMulCount count;        // of all rows, without gate, up and out
};

// True if this machine has AMX for bf16, its operating system lets this process use it, and
// SPARCOM_ISA asks for no lesser set.
bool has_amx();

// Both run on the threads of parallel.h, and only if has_amx().
void grouped_product(const GroupedProduct& p);

// Throws std::invalid_argument, before anything is written, if a token is out of range.
void routed_experts(const RoutedExperts& p);

}  // namespace sparcom
