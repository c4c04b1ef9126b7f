// sparcom._native: the CPU kernels. They take pointers and sizes, no torch objects. Python checks
// shapes and dtypes, where tensors have names: counting/ops.py, selection/bits.py and
// engines/experts/grouped.py.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "../cpu/activation/launcher.h"
#include "../cpu/bits/bits.h"
#include "../cpu/dispatch.h"
#include "../cpu/experts/grouped_product.h"
#include "../cpu/experts/route.h"
#include "../cpu/experts/weighted_sum.h"
#include "../cpu/parallel.h"
#include "call.h"

namespace py = pybind11;

namespace sparcom {
namespace {

// ValueError, before anything is written, if check() or check_indices() finds a fault.
void py_act_mul_count(const ActMulCount& p) {
  check_indices(p);
  act_mul_count_cpu(p);
}

// ValueError if a row is out of range.
void py_weighted_sum(uintptr_t y, uintptr_t row, uintptr_t weights, uintptr_t out, int64_t tokens,
                     int64_t top_k, int64_t rows, int64_t width, int dtype, bool round_products) {
  weighted_sum({pointer<void>(y), pointer<int64_t>(row), pointer<float>(weights),
                pointer<void>(out), tokens, top_k, rows, width, Dtype(dtype), round_products});
}

bool py_has_amx() {
#if defined(__x86_64__)
  return has_amx();
#else
  return false;
#endif
}

[[noreturn]] void fail_without_amx(const char* kernel) {
  throw std::runtime_error(std::string(kernel) + ": needs AMX for bf16; ask has_amx() first");
}

void py_grouped_product(uintptr_t x, uintptr_t weight, uintptr_t out, uintptr_t begin,
                        int64_t groups, int64_t inputs, int64_t outputs) {
  if (!py_has_amx()) fail_without_amx("grouped_product");
#if defined(__x86_64__)
  grouped_product({pointer<uint16_t>(x), pointer<uint16_t>(weight), pointer<uint16_t>(out),
                   pointer<int64_t>(begin), groups, inputs, outputs});
#endif
}

bool py_route(uintptr_t ids, uintptr_t local, uintptr_t slots, int64_t tokens, int64_t top_k,
              int64_t experts, int64_t local_experts, uintptr_t token, uintptr_t row,
              uintptr_t begin, uintptr_t bins) {
  return route({pointer<int64_t>(ids), pointer<int64_t>(local), pointer<int32_t>(slots), tokens,
                top_k, experts, local_experts, pointer<int64_t>(token), pointer<int64_t>(row),
                pointer<int64_t>(begin), pointer<int32_t>(bins)});
}

// ValueError, before anything is written, if a token or a bin is out of range.
void py_routed_experts(uintptr_t x, uintptr_t token, uintptr_t begin, uintptr_t gate_up,
                       uintptr_t down, uintptr_t y, int64_t tokens, int64_t experts, int64_t hidden,
                       int64_t outputs, int64_t width, uintptr_t bins, uintptr_t counts,
                       uintptr_t rows, uintptr_t signs, int64_t n_bins, int activation, float limit, float alpha,
                       float beta, float linear_beta, int signal, double threshold) {
  if (!py_has_amx()) fail_without_amx("routed_experts");
  RoutedExperts p{pointer<uint16_t>(x), pointer<int64_t>(token), pointer<int64_t>(begin),
                  pointer<uint16_t>(gate_up), pointer<uint16_t>(down), pointer<uint16_t>(y),
                  tokens, experts, hidden, outputs, {}};
  p.count.n_rows = p.begin[experts];
  p.count.width = width;
  p.count.dtype = Dtype::bf16;
  p.count.step = 1;
  p.count.activation = Activation(activation);
  p.count.parameters = {limit, alpha, beta, linear_beta};
  p.count.bins = pointer<int32_t>(bins);
  p.count.counts = pointer<int32_t>(counts);
  p.count.rows = pointer<int32_t>(rows);
  p.count.signs = pointer<int32_t>(signs);
  p.count.n_bins = n_bins;
  p.count.signal = Signal(signal);
  p.count.threshold = threshold;
  check_signs(p.count, outputs == 2 * width);
  check_indices(p.count);
  p.count.counted = counted_ranges(p.count);
#if defined(__x86_64__)
  routed_experts(p);
#endif
}

using Array32 = py::array_t<int32_t, py::array::c_style>;
using Array8 = py::array_t<uint8_t, py::array::c_style>;

// ranges: [begin, end) of all groups, group after group.
void py_select(const Array32& counts, const std::vector<std::pair<int64_t, int64_t>>& ranges,
               const std::vector<int64_t>& range_offsets, const std::vector<int64_t>& sizes,
               int ties, Array32& cuts, Array32& selected, Array8& bits) {
  std::vector<Range> r;
  for (const auto& range : ranges) r.push_back({range.first, range.second});
  const Select s{counts.data(),
                 counts.shape(0),
                 counts.shape(1),
                 r.data(),
                 range_offsets.data(),
                 sizes.empty() ? nullptr : sizes.data(),
                 int64_t(range_offsets.size()) - 1,
                 Ties(ties),
                 cuts.mutable_data(),
                 selected.mutable_data(),
                 bits.mutable_data()};
  const py::gil_scoped_release release;
  select(s);
}

void py_intersections(const Array8& a, const Array8& b, Array32& out) {
  const Intersections p{a.data(),   b.data(),   a.shape(0),
                        b.shape(0), a.shape(1), out.mutable_data()};
  const py::gil_scoped_release release;
  intersections(p);
}

py::dict info() {
  py::dict d;
  d["isa"] = kernels().isa;
  d["bits_isa"] = bit_kernels().isa;
  d["openmp"] = openmp_library();
  d["threads"] = max_threads();
  d["compiler"] = __VERSION__;
  return d;
}

}  // namespace
}  // namespace sparcom

PYBIND11_MODULE(_native, m) {
  using namespace sparcom;
  using release_gil = py::call_guard<py::gil_scoped_release>;
  m.def("act_mul_count", from_numbers(read_act_mul_count, py_act_mul_count), release_gil());
  m.def("select", py_select);
  m.def("intersections", py_intersections);
  m.def("has_amx", py_has_amx);
  m.def("grouped_product", py_grouped_product, release_gil());
  m.def("route", py_route, release_gil());
  m.def("routed_experts", py_routed_experts, release_gil());
  m.def("weighted_sum", py_weighted_sum, release_gil());
  m.def("info", info);
}
