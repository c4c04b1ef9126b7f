// cuda/act_mul_count.h as plain C++: a loop over every thread of the grid, in an order that the
// test chooses. The tests build it; it takes the same arguments as sparcom._native_cuda.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "../cuda/act_mul_count.h"
#include "call.h"

namespace py = pybind11;

namespace sparcom {
namespace {

struct Emulate {
  const ActMulCount& p;
  const Launch& l;
  uint32_t seed;  // of the order of the threads; 0: in order

  template <class T, int n, int A, Call C>
  void of() {
    std::vector<uint32_t> threads(size_t(l.blocks) * threads_per_block);
    std::iota(threads.begin(), threads.end(), 0u);
    if (seed) std::shuffle(threads.begin(), threads.end(), std::mt19937(seed));
    for (const uint32_t thread : threads) act_mul_count_thread<T, n, A, C>(p, l, thread);
  }
};

py::dict described(const Launch& l) {
  py::dict d;
  d["vectors"] = l.vectors;
  d["threads_per_row"] = l.threads_per_row;
  d["rows_per_thread"] = l.rows_per_thread;
  d["blocks"] = l.blocks;
  return d;
}

// Runs the kernel as a device with this many multiprocessors would; returns the launch parameters.
py::dict act_mul_count(const ActMulCount& p, int multiprocessors, uint32_t seed) {
  const Launch l = launch_parameters(p, multiprocessors);
  approximation_seed = seed;
  if (p.n_rows) with_kernel(p, l, Emulate{p, l, seed});
  return described(l);
}

// launch_parameters of contiguous, aligned, gated rows.
py::dict launch(int64_t n_rows, int64_t width, int dtype, int multiprocessors) {
  ActMulCount p{};
  p.n_rows = n_rows;
  p.width = p.gate_stride = p.up_stride = width;
  p.step = 1;
  p.dtype = Dtype(dtype);
  return described(launch_parameters(p, multiprocessors));
}

}  // namespace
}  // namespace sparcom

PYBIND11_MODULE(emulation, m) {
  using namespace sparcom;
  m.attr("threads_per_block") = threads_per_block;
  m.attr("blocks_per_multiprocessor") = blocks_per_multiprocessor;
  m.def("act_mul_count", from_numbers(make_act_mul_count, act_mul_count));
  m.def("launch", launch);
}
