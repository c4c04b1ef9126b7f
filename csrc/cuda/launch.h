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

struct Device {
  int multiprocessors;
  bool moves_32_bytes;  // the code that runs there does: sm_100 and later
};

struct Launch {
  bool vectors;  // 16 bytes per access; else one element
  bool striped;  // the layout of counts and signs: count_layout.h
  bool wide;     // 32 bytes per access: usual calls of fp32; to load gate and up that take turns
  uint32_t threads_per_row;
  int32_t rows_per_thread;  // neighbouring rows, so that a run stays in one thread
  uint32_t blocks;
};

// True if a call is not one of the usual ones, whatever its activation: kernels.h.
inline bool is_any(const ActMulCount& p) {
  return p.keep || p.fill || p.signal == Signal::product || p.counted.n != 1;
}

// True if every row, `stride` elements apart, starts at a multiple of so many bytes.
inline bool aligned(const ActMulCount& p, const void* base, int64_t stride, int64_t to) {
  return reinterpret_cast<uintptr_t>(base) % to == 0 && stride * element_size(p.dtype) % to == 0;
}

// True if every access of 16 (or 32) bytes is aligned to as many. Gate and up take turns in calls of
// activations with parameters; there is no vector kernel for others that do.
inline bool vectors_fit(const ActMulCount& p, int64_t bytes = 16) {
  if (p.step == 2 && !shapes_up(p.activation)) return false;
  return p.width > 0 && aligned(p, p.gate, p.gate_stride, bytes) &&
         (!p.up || p.step == 2 || aligned(p, p.up, p.up_stride, bytes)) &&
         aligned(p, p.out, p.width, bytes) && aligned(p, p.keep, 0, bytes) &&
         aligned(p, p.fill, 0, bytes);
}

// The threads have equally many rows and fill the device up to `most_waves` times: a multiprocessor
// that is done early takes more of the later waves. More waves cut more runs, so each thread keeps
// `fewest_rows`; in order, where an addition is eight requests, one wave has to do. If there are few
// rows, each thread has one. A thread of a usual call owns 32 bytes of fp32 if threads that own 16
// would have two rows or more; else there would be fewer of them than fit. (Other calls would spill.)
// `together`: the threads of a row are a multiple of it; those beyond its columns have nothing to do.
inline Launch launch_parameters(const ActMulCount& p, Device device, bool striped,
                                int64_t together = 1) {
  const auto parts = [](int64_t n, int64_t size) { return (n + size - 1) / size; };
  const auto threads_per_row = [&](int64_t columns) {
    return p.width ? parts(p.width, columns * together) * together : 1;
  };
  const auto rows_in_one_wave = [&](int64_t per_row) {
    const int64_t resident =
        int64_t(device.multiprocessors) * blocks_per_multiprocessor * threads_per_block;
    const int64_t chunks = resident > per_row ? resident / per_row : 1;
    return p.n_rows ? parts(p.n_rows, chunks) : 1;
  };
  const bool vectors = vectors_fit(p);
  const int64_t columns = vectors ? 16 / element_size(p.dtype) : 1;  // of a thread
  int64_t per_row = threads_per_row(columns), in_one_wave = rows_in_one_wave(per_row);
  const bool turns = vectors && p.step == 2 && aligned(p, p.gate, p.gate_stride, 32);
  const bool floats = p.dtype == Dtype::fp32 && !is_any(p) && !shapes_up(p.activation) &&
                      vectors_fit(p, 32) && in_one_wave > 1;
  const bool wide = device.moves_32_bytes && (turns || floats);
  if (wide && floats) {
    per_row = threads_per_row(2 * columns);
    in_one_wave = rows_in_one_wave(per_row);
  }
  int64_t waves = striped ? most_waves : 1;
  while (waves > 1 && parts(in_one_wave, waves) < fewest_rows) --waves;
  const int64_t rows = parts(in_one_wave, waves);
  const int64_t threads = parts(p.n_rows, rows) * per_row;
  if (threads > int64_t(UINT32_MAX) - threads_per_block || p.width > int64_t(UINT32_MAX) ||
      rows > INT32_MAX)
    throw std::invalid_argument("act_mul_count: gate must have a width below 2^32 and below 2^31 "
                                "rows on CUDA, got [" + std::to_string(p.n_rows) + ", " +
                                std::to_string(p.width) + "]; split it");
  return {vectors, striped, wide, uint32_t(per_row), int32_t(rows),
          uint32_t(parts(threads, threads_per_block))};
}

// Of act_mul_count_quant: no warp has threads of two rows, see quantise.h.
inline Launch quant_launch_parameters(const ActMulCount& p, Device device, bool striped) {
  return launch_parameters(p, device, striped, threads_per_warp);
}

}  // namespace sparcom
