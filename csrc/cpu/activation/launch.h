// act_mul_count on this machine's threads.
#pragma once

#include "../../act_mul_count.h"
#include "../dispatch.h"

namespace sparcom {

void act_mul_count_cpu(const ActMulCount& p);

// For `Tile::locks`: one set in the process, since calls may add to the same counts.
extern uint8_t counter_locks[n_locks];

}  // namespace sparcom
