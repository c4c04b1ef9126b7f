#include "route.h"

#include <cstddef>
#include <vector>

namespace sparcom {

bool route(const Route& p) {
  std::vector<int64_t> next(std::size_t(p.local_experts + 1), 0);
  const auto local = [&](int64_t id) { return p.local ? p.local[id] : id; };
  for (int64_t t = 0; t < p.tokens; ++t) {
    const int64_t* const ids = p.ids + t * p.top_k;
    for (int64_t k = 0; k < p.top_k; ++k) {
      if (ids[k] < 0 || ids[k] >= p.experts) return false;
      for (int64_t j = 0; j < k; ++j)
        if (ids[j] == ids[k]) return false;
      if (local(ids[k]) >= 0) ++next[std::size_t(local(ids[k]) + 1)];
    }
  }
  for (int64_t e = 0; e < p.local_experts; ++e) next[std::size_t(e + 1)] += next[std::size_t(e)];
  for (int64_t e = 0; e <= p.local_experts; ++e) p.begin[e] = next[std::size_t(e)];
  for (int64_t t = 0; t < p.tokens; ++t)
    for (int64_t k = 0; k < p.top_k; ++k) {
      const int64_t e = local(p.ids[t * p.top_k + k]);
      const int64_t r = e < 0 ? -1 : next[std::size_t(e)]++;
      p.row[t * p.top_k + k] = r;
      if (r < 0) continue;
      p.token[r] = t;
      p.bins[r] = p.slots[t] < 0 ? -1 : int32_t(p.slots[t] * p.local_experts + e);
    }
  return true;
}

}  // namespace sparcom
