#include "weighted_sum.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "../dispatch.h"
#include "../parallel.h"

namespace sparcom {

void weighted_sum(const WeightedSum& p) {
  constexpr int64_t least = 16 * 1024;  // elements of a thread: for fewer, its start costs more
  for (int64_t i = 0; i < p.tokens * p.top_k; ++i)
    if (p.row[i] >= p.rows)
      throw std::invalid_argument("weighted_sum: row must be below the " + std::to_string(p.rows) +
                                  " rows of y, got " + std::to_string(p.row[i]));
  const auto run = kernels().weighted_sum;
  const int64_t work = p.tokens * p.top_k * p.width / least;
  const int want = int(std::clamp<int64_t>(work, 1, max_threads()));
  parallel_for_threads(want, [&](int thread, int n) {
    run(p, p.tokens * thread / n, p.tokens * (thread + 1) / n);
  });
}

}  // namespace sparcom
