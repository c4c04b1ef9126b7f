// act_mul_count on the CPU, for callers that know nothing of instruction sets and threads.
#pragma once

#include "../../act_mul_count.h"
#include "../dispatch.h"

namespace sparcom {

// Runs the kernel and waits for it. `check` and `check_indices` have passed; p.counted is filled
// in.
void act_mul_count_cpu(const ActMulCount& p);

// For `Tile::locks`: one set in the whole process, since several calls may add to the same counts.
extern uint8_t counter_locks[n_locks];

}  // namespace sparcom
