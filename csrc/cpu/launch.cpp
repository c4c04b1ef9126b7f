#include "launch.h"

#include <algorithm>

#include "act_mul_count.h"
#include "dispatch.h"
#include "parallel.h"

namespace sparcom {
namespace {

constexpr int64_t min_columns = 256;          // of a tile
constexpr int64_t min_elements = 16 * 1024;   // of a thread: below, starting it costs more
constexpr int64_t stream_bytes = 32ll << 20;  // an output larger than this leaves the caches anyway

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Grid {
  int64_t columns, rows;  // tiles in each direction
  int64_t tile_columns, tile_rows;
};

Grid make_grid(const ActMulCount& p, int64_t block) {
  const int64_t threads = std::max<int64_t>(
      1, std::min<int64_t>(max_threads(), p.n_rows * p.width / min_elements));
  Grid g;
  g.columns = std::max<int64_t>(1, std::min(threads, p.width / min_columns));
  g.tile_columns = ceil_div(ceil_div(p.width, g.columns), block) * block;
  g.columns = ceil_div(p.width, g.tile_columns);
  g.rows = std::min(p.n_rows, threads / g.columns);
  g.rows = std::max<int64_t>(1, g.rows);
  g.tile_rows = ceil_div(p.n_rows, g.rows);
  return g;
}

}  // namespace

void act_mul_count_cpu(const ActMulCount& p) {
  if (p.n_rows == 0) return;
  const Kernels& k = kernels();
  const Grid g = make_grid(p, std::max<int64_t>(k.block, 64));
  const int64_t row_bytes = p.width * element_size(p.dtype);
  const bool aligned = reinterpret_cast<uintptr_t>(p.out) % 64 == 0 && row_bytes % 64 == 0;
  const bool stream = aligned && p.n_rows * row_bytes >= stream_bytes;
  const int64_t tiles = g.columns * g.rows;
  parallel_for_threads(int(tiles), [&](int thread, int n_threads) {
    for (int64_t i = thread; i < tiles; i += n_threads) {
      const int64_t row = i / g.columns * g.tile_rows, col = i % g.columns * g.tile_columns;
      const Tile t{row,         std::min(row + g.tile_rows, p.n_rows),
                   col,         std::min(col + g.tile_columns, p.width),
                   g.rows > 1,  col == 0,
                   stream};
      k.act_mul_count_tile(p, t);
    }
  });
}

}  // namespace sparcom
