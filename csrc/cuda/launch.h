// How rows and columns are divided among threads: a plain function of the shape and the device.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "../act_mul_count.h"

namespace sparcom {

constexpr int threads_per_warp = 32;
constexpr int threads_per_block = 128;
constexpr int blocks_per_multiprocessor = 7;  // so the compiler may use at most 72 registers

// The rows of a thread below which the device is not filled twice. An addition is a request for each
// 32 counts of a run, or part of a run that a thread has; at 16 rows these are 4 % of all requests.
constexpr int fewest_rows = 16;
constexpr int most_waves = 4;

struct Launch {
  bool vectors;  // 16 bytes per access; else one element
  bool striped;  // the layout of counts and signs: count_layout.h
  uint32_t threads_per_row;
  int32_t rows_per_thread;  // neighbouring rows, so that a run stays in one thread
  uint32_t blocks;
};

// True if every access of 16 bytes is aligned to 16 bytes. Gate and up take turns in calls of
// activations with parameters; there is no vector kernel for others that do.
inline bool vectors_fit(const ActMulCount& p) {
  const int64_t size = element_size(p.dtype);
  const auto aligned = [](const void* base, int64_t bytes) {
    return reinterpret_cast<uintptr_t>(base) % 16 == 0 && bytes % 16 == 0;
  };
  if (p.step == 2 && !shapes_up(p.activation)) return false;
  return p.width > 0 && aligned(p.gate, p.gate_stride * size) &&
         (!p.up || p.step == 2 || aligned(p.up, p.up_stride * size)) &&
         aligned(p.out, p.width * size) &&
         aligned(p.keep, 0) && aligned(p.fill, 0);
}

// The threads have equally many rows and fill the device up to `most_waves` times: a multiprocessor
// that is done early takes more of the later waves. More waves cut more runs, so each thread keeps
// `fewest_rows`; in order, where an addition is eight requests, one wave has to do. If there are few
// rows, each thread has one.
// `together`: the threads of a row are a multiple of it; those beyond its columns have nothing to do.
inline Launch launch_parameters(const ActMulCount& p, int multiprocessors, bool striped,
                                int64_t together = 1) {
  const auto parts = [](int64_t n, int64_t size) { return (n + size - 1) / size; };
  const bool vectors = vectors_fit(p);
  const int64_t columns = vectors ? 16 / element_size(p.dtype) : 1;  // of a thread
  const int64_t per_row = p.width ? parts(p.width, columns * together) * together : 1;
  const int64_t resident = int64_t(multiprocessors) * blocks_per_multiprocessor * threads_per_block;
  const int64_t chunks = resident > per_row ? resident / per_row : 1;
  const int64_t in_one_wave = p.n_rows ? parts(p.n_rows, chunks) : 1;
  int64_t waves = striped ? most_waves : 1;
  while (waves > 1 && parts(in_one_wave, waves) < fewest_rows) --waves;
  const int64_t rows = parts(in_one_wave, waves);
  const int64_t threads = parts(p.n_rows, rows) * per_row;
  if (threads > int64_t(UINT32_MAX) - threads_per_block || p.width > int64_t(UINT32_MAX) ||
      rows > INT32_MAX)
    throw std::invalid_argument("act_mul_count: gate must have a width below 2^32 and below 2^31 "
                                "rows on CUDA, got [" + std::to_string(p.n_rows) + ", " +
                                std::to_string(p.width) + "]; split it");
  return {vectors, striped, uint32_t(per_row), int32_t(rows),
          uint32_t(parts(threads, threads_per_block))};
}

// Of act_mul_count_quant: no warp has threads of two rows, see quantise.h.
inline Launch quant_launch_parameters(const ActMulCount& p, int multiprocessors, bool striped) {
  return launch_parameters(p, multiprocessors, striped, threads_per_warp);
}

}  // namespace sparcom
