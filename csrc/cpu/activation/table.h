// Tables of round(f): what a 16-bit dtype needs of an activation, since it has 65,536 values.
//
// Where gathers are fast, 16 of them cost less than the polynomial and the quotient of one f, for
// every activation the same, and the result is the correctly rounded f. A table has 256 KiB and lies
// in the second-level cache; the gates of a layer meet some thousand entries, a first-level one's
// share.
#pragma once

#include "../../act_mul_count.h"

namespace sparcom {

// round(f(x)) as a float, at x's bit pattern; built at the first call, once per process. dtype: bf16
// or fp16.
const float* activation_table(Activation activation, Dtype dtype);

}  // namespace sparcom
