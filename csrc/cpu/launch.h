// act_mul_count on this machine's threads.
#pragma once

#include "../act_mul_count.h"

namespace sparcom {

void act_mul_count_cpu(const ActMulCount& p);

}  // namespace sparcom
