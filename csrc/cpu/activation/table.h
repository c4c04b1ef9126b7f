// Tables of round(f) for the 16-bit dtypes, which have 65,536 values.
//
// On a processor with fast gathers, 16 of them cost less than the polynomial and the quotient of
// one f. They cost the same for every activation, and give the correctly rounded f. A table takes
// 256 KiB of the second-level cache; the gates of a layer use some thousand entries, which fit in
// the first level.
#pragma once

#include "../../act_mul_count.h"

namespace sparcom {

// True if f has a table: it is neither cheaper to compute, nor has it parameters.
constexpr bool has_table(Activation a) {
  return a == Activation::silu || a == Activation::gelu || a == Activation::gelu_tanh;
}

// round(f(x)) as a float, at index x's bit pattern; null if f has no table. Built at the first
// call, once per process. dtype: bf16 or fp16.
const float* activation_table(Activation activation, Dtype dtype);

}  // namespace sparcom
