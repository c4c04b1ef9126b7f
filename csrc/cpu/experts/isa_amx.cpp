// Grouped products on AMX. setup.py compiles only this file with the flags it needs.
#include "grouped_product.h"

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

#include "../activation/launcher.h"
#include "../activation/table.h"
#include "../dispatch.h"
#include "../parallel.h"

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

// A panel: 32 rows as AMX reads them, two tiles of 16 rows for every 32 inputs. Its tiles follow
// one another; the rows themselves are often a power of two apart, and would share few sets of the
// first-level cache.
template <class RowAt>
void fill_panel(uint16_t* panel, int64_t inputs, int64_t n_rows, RowAt row_at) {
  for (int64_t r = 0; r < side; ++r) {
    uint16_t* to = panel + (r / 16 * tile_elements + r % 16 * 32);
    const uint16_t* const from = r < n_rows ? row_at(r) : nullptr;
    for (int64_t k = 0; k < inputs; k += 32, to += 2 * tile_elements)
      _mm512_storeu_si512(to, from ? _mm512_loadu_si512(from + k) : _mm512_setzero_si512());
  }
}

// out[0..n_rows)[0..32) = panel @ two neighbouring columns of tiles.
void block(const uint16_t* panel, int64_t inputs, const uint16_t* weight, uint16_t* out,
           int64_t outputs, int64_t n_rows) {
  const int64_t steps = inputs / 32;
  const uint16_t* const second = weight + steps * tile_elements;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t k = 0; k < steps; ++k) {
    _tile_loadd(4, panel + 2 * k * tile_elements, 64);
    _tile_loadd(5, panel + (2 * k + 1) * tile_elements, 64);
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

// out[0..n_rows)[begin..end) = panel @ those columns of one group's weight.
void columns(const uint16_t* panel, int64_t inputs, const uint16_t* weight, int64_t begin,
             int64_t end, uint16_t* out, int64_t outputs, int64_t n_rows) {
  for (int64_t c = begin; c < end; c += side)
    block(panel, inputs, weight + c * inputs, out + c, outputs, n_rows);
}

// Configures the tiles while it is in scope.
class Tiles {
 public:
  Tiles() {
    const TileConfig config;
    _tile_loadconfig(&config);
  }
  ~Tiles() { _tile_release(); }
};

bool permitted() {
  if (std::string(kernels().isa).rfind("avx512", 0) != 0) return false;
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned bf16 = 1u << 22, tile = 1u << 24;
  if ((d & bf16) == 0 || (d & tile) == 0) return false;
  unsigned a1, b1, c1, d1;  // AVX512_BF16: every processor with AMX has it
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
    const Tiles tiles;
    std::vector<uint16_t> panel(size_t(side * p.inputs));
    for (int64_t t; (t = next.fetch_add(1)) < tasks;) {
      const int64_t group = t / per_group, c = t % per_group * columns_per_task;
      const uint16_t* const weight = p.weight + group * p.outputs * p.inputs;
      for (int64_t r = p.begin[group], end = p.begin[group + 1]; r < end; r += side) {
        const int64_t n = std::min(side, end - r);
        fill_panel(panel.data(), p.inputs, n, [&](int64_t i) { return p.x + (r + i) * p.inputs; });
        columns(panel.data(), p.inputs, weight, c, std::min(c + columns_per_task, p.outputs),
                p.out + r * p.outputs, p.outputs, n);
      }
    }
  });
}

void routed_experts(const RoutedExperts& p) {
  const int64_t rows = p.begin[p.experts], width = p.count.width;
  for (int64_t r = 0; r < rows; ++r)
    if (p.token[r] < 0 || p.token[r] >= p.tokens)
      throw std::invalid_argument("routed_experts: token[" + std::to_string(r) +
                                  "] must be in [0, " + std::to_string(p.tokens) + "), got " +
                                  std::to_string(p.token[r]));
  // A task is an expert, or a part of one that has more than its share of the rows.
  const int64_t share = std::max(side, rows / (4 * max_threads()) / side * side);
  std::vector<std::array<int64_t, 3>> tasks;  // expert, first row, end
  for (int64_t e = 0; e < p.experts; ++e)
    for (int64_t r = p.begin[e]; r < p.begin[e + 1]; r += share)
      tasks.push_back({e, r, std::min(r + share, p.begin[e + 1])});
  const Kernels& k = kernels();
  const float* const table =
      k.looks_up ? activation_table(p.count.activation, Dtype::bf16) : nullptr;
  const bool gated = p.outputs == 2 * width;
  std::atomic<size_t> next{0};
  parallel_for_threads(int(std::min<int64_t>(int64_t(tasks.size()), max_threads())),
                       [&](int, int) {
    const Tiles tiles;
    std::vector<uint16_t> panel(size_t(side * std::max(p.hidden, width)));
    std::vector<uint16_t> gate_up(size_t(side * p.outputs)), h(size_t(side * width));
    for (size_t t; (t = next.fetch_add(1)) < tasks.size();) {
      const auto [e, begin, end] = tasks[t];
      for (int64_t r = begin; r < end; r += side) {
        const int64_t n = std::min(side, end - r);
        fill_panel(panel.data(), p.hidden, n,
                   [&](int64_t i) { return p.x + p.token[r + i] * p.hidden; });
        columns(panel.data(), p.hidden, p.gate_up + e * p.outputs * p.hidden, 0, p.outputs,
                gate_up.data(), p.outputs, n);
        ActMulCount c = p.count;
        c.gate = gate_up.data();
        c.up = gated ? gate_up.data() + width : nullptr;
        c.out = h.data();
        c.bins += r;
        c.n_rows = n;
        c.gate_stride = c.up_stride = p.outputs;
        k.act_mul_count_tile(c, {0, n, 0, width, counter_locks, true, table, false});
        fill_panel(panel.data(), width, n, [&](int64_t i) { return h.data() + i * width; });
        columns(panel.data(), width, p.down + e * p.hidden * width, 0, p.hidden,
                p.y + r * p.hidden, p.hidden, n);
      }
    }
  });
}

}  // namespace sparcom
