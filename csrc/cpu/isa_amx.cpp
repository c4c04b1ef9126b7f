// Grouped products on AMX. setup.py compiles this file, and no other, with the flags it needs.
#include "grouped_product.h"

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <vector>

#include "dispatch.h"
#include "parallel.h"

namespace sparcom {
namespace {

constexpr int64_t side = 32;           // rows and columns of a block: two tiles each way
constexpr int64_t tile_elements = 512;  // of a weight's tile: 32 inputs x 16 outputs
constexpr int64_t columns_per_task = 8 * side;

// Tiles 0 to 3 hold sums, 4 and 5 rows, 6 and 7 weights; all are 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// out[0..n_rows)[0..32) = x[0..32) @ two columns of tiles; x may be read 32 rows far.
void block(const uint16_t* x, int64_t inputs, const uint16_t* weight, uint16_t* out,
           int64_t outputs, int64_t n_rows) {
  const int64_t steps = inputs / 32, stride = inputs * 2;
  const uint16_t* const second = weight + steps * tile_elements;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t k = 0; k < steps; ++k) {
    _tile_loadd(4, x + k * 32, stride);
    _tile_loadd(5, x + k * 32 + 16 * inputs, stride);
    _tile_loadd(6, weight + k * tile_elements, 64);
    _tile_loadd(7, second + k * tile_elements, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  alignas(64) float sums[side * side];
  _tile_stored(0, sums, side * 4);
  _tile_stored(1, sums + 16, side * 4);
  _tile_stored(2, sums + 16 * side, side * 4);
  _tile_stored(3, sums + 16 * side + 16, side * 4);
  for (int64_t r = 0; r < n_rows; ++r) {
    const __m512 low = _mm512_load_ps(sums + r * side), high = _mm512_load_ps(sums + r * side + 16);
    _mm512_storeu_si512(out + r * outputs, (__m512i)_mm512_cvtne2ps_pbh(high, low));
  }
}

// Columns [first, last) of one group. The weights of 32 columns stay in the first-level cache while
// all rows pass by.
void columns(const GroupedProduct& p, int64_t group, int64_t first, int64_t last,
             const uint16_t* tail) {
  const int64_t begin = p.begin[group], end = p.begin[group + 1];
  for (int64_t c = first; c < last; c += side) {
    const uint16_t* const w = p.weight + (group * p.outputs + c) * p.inputs;
    for (int64_t r = begin; r < end; r += side) {
      const int64_t n = std::min(side, end - r);
      block(n == side ? p.x + r * p.inputs : tail, p.inputs, w, p.out + r * p.outputs + c,
            p.outputs, n);
    }
  }
}

bool permitted() {
  if (std::string(kernels().isa).rfind("avx512", 0) != 0) return false;
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned bf16 = 1u << 22, tile = 1u << 24;
  if ((d & bf16) == 0 || (d & tile) == 0) return false;
  unsigned a1, b1, c1, d1;  // AVX512_BF16, which every processor with AMX has
  if (!__get_cpuid_count(7, 1, &a1, &b1, &c1, &d1) || (a1 & (1u << 5)) == 0) return false;
  constexpr int request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, of Linux
  return syscall(SYS_arch_prctl, request, tile_data) == 0;
}

}  // namespace

bool has_amx() {
  static const bool found = permitted();
  return found;
}

void grouped_product(const GroupedProduct& p) {
  const int64_t per_group = (p.outputs + columns_per_task - 1) / columns_per_task;
  const int64_t tasks = p.groups * per_group;
  std::atomic<int64_t> next{0};
  parallel_for_threads(int(std::min<int64_t>(tasks, max_threads())), [&](int, int) {
    const TileConfig config;
    _tile_loadconfig(&config);
    std::vector<uint16_t> tail(size_t(side * p.inputs));
    for (int64_t t; (t = next.fetch_add(1)) < tasks;) {
      const int64_t group = t / per_group, c = t % per_group * columns_per_task;
      const int64_t end = p.begin[group + 1], rest = (end - p.begin[group]) % side;
      if (rest)  // the last, short block of rows goes through a copy
        __builtin_memcpy(tail.data(), p.x + (end - rest) * p.inputs, size_t(rest * p.inputs) * 2);
      columns(p, group, c, std::min(c + columns_per_task, p.outputs), tail.data());
    }
    _tile_release();
  });
}

}  // namespace sparcom
