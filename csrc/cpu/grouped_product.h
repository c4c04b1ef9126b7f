// Products of rows that lie grouped, each group with a matrix of its own, on AMX (bf16).
//
//   out[r, :] = x[r, :] @ weight[g], begin[g] <= r < begin[g + 1]          sums in fp32
//
// A row's result depends on nothing but the row: sums go over the inputs in one order, whatever the
// size of its group.
#pragma once

#include <cstdint>

namespace sparcom {

struct GroupedProduct {
  const uint16_t* x;       // [rows, inputs] bf16
  const uint16_t* weight;  // [groups, outputs / 16, inputs / 32, 16, 16, 2]: experts.pack
  uint16_t* out;           // [rows, outputs] bf16
  const int64_t* begin;    // [groups + 1] rows
  int64_t groups, inputs, outputs;  // inputs and outputs are multiples of 32
};

// Whether this machine has AMX for bf16, its operating system lets this process use it, and
// SPARCOM_ISA does not ask for less.
bool has_amx();

// On this machine's threads; only where `has_amx`.
void grouped_product(const GroupedProduct& p);

}  // namespace sparcom
