// cuda/act_mul_count.h as plain C++: every thread of the grid in a loop, in an order of the test's
// choice. Built by the tests alone; it takes the same arguments as sparcom._native_cuda.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "../check.h"
#include "../counted.h"
#include "../cuda/act_mul_count.h"

namespace py = pybind11;

namespace sparcom {
namespace {

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

struct Emulate {
  const ActMulCount& p;
  const Launch& l;
  uint32_t seed;  // of the order of threads; 0: in order

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

// Runs the kernel as a device of `multiprocessors` would, and returns its launch parameters.
py::dict act_mul_count(uintptr_t gate, uintptr_t up, uintptr_t out, uintptr_t bins,
                       uintptr_t counts, uintptr_t rows, uintptr_t keep, uintptr_t fill,
                       uintptr_t expert, int64_t n_rows, int64_t width, int64_t gate_stride,
                       int64_t up_stride, int64_t n_bins, int64_t n_experts, int dtype,
                       int activation, int signal, double threshold, int multiprocessors,
                       uint32_t seed) {
  ActMulCount p{pointer<void>(gate),     pointer<void>(up),        pointer<void>(out),
                pointer<int32_t>(bins),  pointer<int32_t>(counts), pointer<int32_t>(rows),
                pointer<void>(keep),     pointer<void>(fill),      pointer<int32_t>(expert),
                n_rows,                  width,                    gate_stride,
                up_stride,               n_bins,                   n_experts,
                Dtype(dtype),            Activation(activation),   Signal(signal),
                threshold,               {}};
  check(p);
  p.counted = counted_ranges(p);
  const Launch l = launch_parameters(p, multiprocessors);
  approximation_seed = seed;
  if (n_rows) with_kernel(p, l, Emulate{p, l, seed});
  return described(l);
}

// launch_parameters of contiguous, aligned, gated rows.
py::dict launch(int64_t n_rows, int64_t width, int dtype, int multiprocessors) {
  ActMulCount p{};
  p.n_rows = n_rows;
  p.width = p.gate_stride = p.up_stride = width;
  p.dtype = Dtype(dtype);
  return described(launch_parameters(p, multiprocessors));
}

}  // namespace
}  // namespace sparcom

PYBIND11_MODULE(emulation, m) {
  m.attr("threads_per_block") = sparcom::threads_per_block;
  m.attr("blocks_per_multiprocessor") = sparcom::blocks_per_multiprocessor;
  m.def("act_mul_count", &sparcom::act_mul_count);
  m.def("launch", &sparcom::launch);
}
