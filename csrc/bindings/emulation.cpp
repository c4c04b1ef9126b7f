// cuda/act_mul_count.h as plain C++: a loop over every thread of the grid, in an order that the
// test chooses. The tests build it; it takes the same arguments as sparcom._native_cuda.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "../cuda/act_mul_count.h"
#include "../cuda/quantise.h"
#include "call.h"
#include "warp.h"

namespace py = pybind11;

namespace sparcom {
namespace {

struct Emulate {
  const ActMulCount& p;
  const Launch& l;
  uint32_t seed;  // of the order of the threads; 0: in order
  std::vector<std::vector<uintptr_t>>* additions;  // of each thread, if wanted
  const Quant* to;

  // 0, 1, ... or another order.
  std::vector<uint32_t> numbers(uint32_t count) const {
    std::vector<uint32_t> order(count);
    std::iota(order.begin(), order.end(), 0u);
    if (seed) std::shuffle(order.begin(), order.end(), std::mt19937(seed));
    return order;
  }

  template <class T, int n, int A, Call C>
  void of() {
    if (additions) additions->resize(size_t(l.blocks) * threads_per_block);
    for (const uint32_t thread : numbers(l.blocks * threads_per_block)) {
      sparcom::additions = additions ? &(*additions)[thread] : nullptr;
      act_mul_count_thread<T, n, A, C>(p, l, thread, AsItIs<T>{});
    }
    sparcom::additions = nullptr;
  }

  template <class T, int n, int A, Call C, Quantised Q>
  void of() {
    Warp warp(seed);
    for (const uint32_t w : numbers(l.blocks * threads_per_block / threads_per_warp))
      warp.run([&](uint32_t lane) {
        const uint32_t thread = w * threads_per_warp + lane;
        act_mul_count_thread<T, n, A, C>(p, l, thread, Quantise<T, Q>{*to, thread});
      });
  }
};

py::dict described(const Launch& l) {
  py::dict d;
  d["vectors"] = l.vectors;
  d["wide"] = l.wide;
  d["threads_per_row"] = l.threads_per_row;
  d["rows_per_thread"] = l.rows_per_thread;
  d["blocks"] = l.blocks;
  return d;
}

// Runs the kernel as a device with this many multiprocessors would; returns the launch parameters.
// wide: the device moves 32 bytes at once.
py::dict act_mul_count(const ActMulCount& p, int multiprocessors, uint32_t seed, bool striped,
                       bool wide) {
  const Launch l = launch_parameters(p, {multiprocessors, wide}, striped);
  approximation_seed = seed;
  if (p.n_rows) with_kernel(p, l, Emulate{p, l, seed, nullptr, nullptr});
  return described(l);
}

// The same of act_mul_count_quant.
py::dict act_mul_count_quant(const ActMulCount& p, const Quant& to, int multiprocessors,
                             uint32_t seed, bool striped, bool wide) {
  const Launch l = quant_launch_parameters(p, {multiprocessors, wide}, striped);
  approximation_seed = seed;
  if (p.n_rows) with_quant_kernel(p, to, Emulate{p, l, seed, nullptr, &to});
  return described(l);
}

// The addresses to which each thread adds, in order.
std::vector<std::vector<uintptr_t>> additions_of(const ActMulCount& p, int multiprocessors,
                                                 bool striped, bool wide) {
  std::vector<std::vector<uintptr_t>> found;
  const Launch l = launch_parameters(p, {multiprocessors, wide}, striped);
  if (p.n_rows) with_kernel(p, l, Emulate{p, l, 0, &found, nullptr});
  return found;
}

// The place of each column in a row of counts, as a thread with this many columns finds it.
std::vector<int64_t> places(int64_t width, int columns, bool striped) {
  std::vector<int64_t> found;
  for (int64_t col = 0; col < width; ++col) {
    const Places at = places_of(col - col % columns, width, striped);
    found.push_back(at.first + col % columns * at.stride);
  }
  return found;
}

// launch_parameters of contiguous, aligned, gated rows of a usual call.
py::dict launch(int64_t n_rows, int64_t width, int dtype, int multiprocessors, bool striped,
                bool wide) {
  ActMulCount p{};
  p.n_rows = n_rows;
  p.width = p.gate_stride = p.up_stride = width;
  p.step = p.counted.n = 1;
  p.dtype = Dtype(dtype);
  return described(launch_parameters(p, {multiprocessors, wide}, striped));
}

}  // namespace
}  // namespace sparcom

PYBIND11_MODULE(emulation, m) {
  using namespace sparcom;
  m.attr("threads_per_block") = threads_per_block;
  m.attr("blocks_per_multiprocessor") = blocks_per_multiprocessor;
  m.def("act_mul_count", from_numbers(read_act_mul_count, act_mul_count));
  m.def("act_mul_count_quant", from_numbers(read_act_mul_count, act_mul_count_quant));
  m.def("additions", from_numbers(read_act_mul_count, additions_of));
  m.def("places", places);
  m.def("launch", launch, py::arg("n_rows"), py::arg("width"), py::arg("dtype"),
        py::arg("multiprocessors"), py::arg("striped"), py::arg("wide") = false);
}
