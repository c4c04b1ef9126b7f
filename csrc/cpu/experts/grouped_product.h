// Products of rows that lie grouped, each group with a matrix of its own, on AMX (bf16).
//
//   out[r, :] = x[r, :] @ weight[g], begin[g] <= r < begin[g + 1]          sums in fp32
//
// A row's result depends on nothing but the row: sums go over the inputs in one order, whatever the
// size of its group.
#pragma once

#include <cstdint>

#include "../../act_mul_count.h"

namespace sparcom {

struct GroupedProduct {
  const uint16_t* x;       // [rows, inputs] bf16
  const uint16_t* weight;  // [groups, outputs / 16, inputs / 32, 16, 16, 2]: experts.pack
  uint16_t* out;           // [rows, outputs] bf16
  const int64_t* begin;    // [groups + 1] rows
  int64_t groups, inputs, outputs;  // inputs and outputs are multiples of 32
};

// Routed experts whole, row r of token[r] in expert e, begin[e] <= r < begin[e + 1]:
//
//   y[r, :] = down[e](h),  h = round(f(gate)) * up,  (gate, up) = first[e](x[token[r]])
//
// and h is counted as act_mul_count does. Equal, bit for bit, to gathering the rows, two
// grouped_products and an act_mul_count between them; but a few rows pass through all of it in one
// go, so that nothing between x and y leaves the second-level cache. It pays where that cache holds
// an expert's weights: they are read once for every 32 rows.
struct RoutedExperts {
  const uint16_t* x;       // [tokens, hidden] bf16
  const int64_t* token;    // [rows]
  const int64_t* begin;    // [experts + 1] rows
  const uint16_t* first;   // [experts, outputs, hidden], packed: gate and up (2 width), or width
  const uint16_t* down;    // [experts, hidden, width], packed
  uint16_t* y;             // [rows, hidden] bf16
  int64_t tokens, experts, hidden, outputs;
  ActMulCount count;       // without gate, up and out; bins [rows]; width
};

// Whether this machine has AMX for bf16, its operating system lets this process use it, and
// SPARCOM_ISA does not ask for less.
bool has_amx();

// On this machine's threads; only where `has_amx`.
void grouped_product(const GroupedProduct& p);

// Likewise. Throws std::invalid_argument, before anything is written, for a token out of range.
void routed_experts(const RoutedExperts& p);

}  // namespace sparcom
