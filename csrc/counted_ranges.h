// The counted set of act_mul_count as ranges of bit patterns.
//
// Every f falls (or stays level) up to one minimum and rises (or stays level) after it.
// So {x : f(x) > tau} = {x < lo} + {x > hi}. Both cuts are found once, on the grid of the dtype, by
// bisection over f in double precision. The real-valued f of the exact gate decides: rounding f to
// the dtype plays no part. tau = 0 needs no search: f(x) > 0 exactly when x > 0, for all of them.
#pragma once

#include "act_mul_count.h"

namespace sparcom {

// f(x) in double precision, accurate in the tails too. NaN at -inf for silu and gelu, as in torch.
double activate(Activation activation, const Parameters& c, double x);

// The value of a bit pattern of the dtype; the bit pattern of a value, rounded to nearest even.
double value_of_bits(Dtype dtype, uint32_t bits);
uint32_t bits_of_value(Dtype dtype, double x);

// {x : f(x) > p.threshold} for Signal::gate, {h : h > p.threshold} for Signal::product.
Ranges counted_ranges(const ActMulCount& p);

}  // namespace sparcom
