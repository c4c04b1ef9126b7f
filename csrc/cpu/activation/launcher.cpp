#include "launcher.h"

#include <algorithm>

#include "../dispatch.h"
#include "../parallel.h"
#include "table.h"

namespace sparcom {
namespace {

constexpr int64_t min_rows = 16, min_columns = 256;  // of a tile
constexpr int64_t min_elements = 16 * 1024;  // of a thread: for fewer, its start costs more
constexpr int64_t cached_bytes = 32 << 20;   // an output of this size may still be cached when read

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t clamp(int64_t x, int64_t low, int64_t high) { return std::max(low, std::min(x, high)); }

struct Grid {
  int64_t rows, columns;  // tiles in each direction
  int64_t tile_rows, tile_columns;
};

// A tile per thread: some rows each and, if there are few rows, some columns each.
Grid make_grid(const ActMulCount& p, int64_t block) {
  const int64_t threads = clamp(p.n_rows * p.width / min_elements, 1, max_threads());
  Grid g;
  g.rows = clamp(threads, 1, ceil_div(p.n_rows, min_rows));
  g.tile_rows = ceil_div(p.n_rows, g.rows);
  g.rows = ceil_div(p.n_rows, g.tile_rows);
  g.columns = clamp(threads / g.rows, 1, ceil_div(p.width, min_columns));
  g.tile_columns = std::max(block, ceil_div(ceil_div(p.width, g.columns), block) * block);
  g.columns = std::max<int64_t>(1, ceil_div(p.width, g.tile_columns));
  return g;
}

}  // namespace

uint8_t counter_locks[n_locks];

void act_mul_count_cpu(const ActMulCount& p) {
  if (p.n_rows == 0) return;
  const Kernels& k = kernels();
  const Grid g = make_grid(p, k.block);
  const float* const table = k.looks_up && p.dtype != Dtype::fp32
                                 ? activation_table(p.activation, p.dtype) : nullptr;
  const int64_t bytes = p.n_rows * p.width * element_size(p.dtype);
  const bool stream = bytes > cached_bytes && !p.keep && !p.fill;
  const int64_t tiles = g.columns * g.rows;
  const int want = int(std::min<int64_t>(tiles, max_threads()));
  parallel_for_threads(want, [&](int thread, int n_threads) {
    for (int64_t i = thread; i < tiles; i += n_threads) {
      const int64_t row = i / g.columns * g.tile_rows, col = i % g.columns * g.tile_columns;
      const Tile t{row, std::min(row + g.tile_rows, p.n_rows),
                   col, std::min(col + g.tile_columns, p.width),
                   g.rows > 1 ? counter_locks : nullptr, col == 0, table, stream};
      k.act_mul_count_tile(p, t);
    }
  });
}

}  // namespace sparcom
