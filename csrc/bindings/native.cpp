// sparcom._native: the CPU kernels. Pointers and sizes in, no torch objects; the checks of shapes
// and dtypes are made once, for every backend, in counting/ops.py.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>

#include "../act_mul_count.h"
#include "../check.h"
#include "../counted.h"
#include "../cpu/bits/bits.h"
#include "../cpu/dispatch.h"
#include "../cpu/experts/grouped_product.h"
#include "../cpu/activation/launch.h"
#include "../cpu/parallel.h"
#include "../cpu/experts/route.h"
#include "../cpu/experts/weighted_sum.h"

namespace py = pybind11;

namespace sparcom {
namespace {

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// Raises ValueError, before anything is written, where check() finds a fault.
void py_act_mul_count(uintptr_t gate, uintptr_t up, uintptr_t out, uintptr_t bins,
                      uintptr_t counts, uintptr_t rows, uintptr_t keep, uintptr_t fill,
                      uintptr_t expert, int64_t n_rows, int64_t width, int64_t gate_stride,
                      int64_t up_stride, int64_t n_bins, int64_t n_experts, int dtype,
                      int activation, int signal, double threshold) {
  const py::gil_scoped_release release;
  ActMulCount p{pointer<void>(gate),     pointer<void>(up),        pointer<void>(out),
                pointer<int32_t>(bins),  pointer<int32_t>(counts), pointer<int32_t>(rows),
                pointer<void>(keep),     pointer<void>(fill),      pointer<int32_t>(expert),
                n_rows,                  width,                    gate_stride,
                up_stride,               n_bins,                   n_experts,
                Dtype(dtype),            Activation(activation),   Signal(signal),
                threshold,               {}};
  check(p);
  check_indices(p);
  p.counted = counted_ranges(p);
  act_mul_count_cpu(p);
}

// Shapes and dtypes are checked in engines/experts.py; raises ValueError for a place out of range.
void py_weighted_sum(uintptr_t y, uintptr_t place, uintptr_t weights, uintptr_t out,
                     int64_t tokens, int64_t top_k, int64_t rows, int64_t width, int dtype,
                     bool round_products) {
  const py::gil_scoped_release release;
  weighted_sum({pointer<void>(y), pointer<int64_t>(place), pointer<float>(weights),
                pointer<void>(out), tokens, top_k, rows, width, Dtype(dtype), round_products});
}

bool py_has_amx() {
#if defined(__x86_64__)
  return has_amx();
#else
  return false;
#endif
}

// Shapes and dtypes are checked in engines/experts.py.
void py_grouped_product(uintptr_t x, uintptr_t weight, uintptr_t out, uintptr_t begin,
                        int64_t groups, int64_t inputs, int64_t outputs) {
#if defined(__x86_64__)
  const py::gil_scoped_release release;
  if (has_amx())
    return grouped_product({pointer<uint16_t>(x), pointer<uint16_t>(weight), pointer<uint16_t>(out),
                            pointer<int64_t>(begin), groups, inputs, outputs});
#endif
  throw std::runtime_error("grouped_product: needs AMX for bf16; ask has_amx() first");
}

// Shapes and dtypes are checked in engines/experts.py.
bool py_route(uintptr_t ids, uintptr_t place, uintptr_t slots, int64_t tokens, int64_t top_k,
              int64_t experts, int64_t held, uintptr_t token, uintptr_t row, uintptr_t begin,
              uintptr_t bins) {
  const py::gil_scoped_release release;
  return route({pointer<int64_t>(ids), pointer<int64_t>(place), pointer<int32_t>(slots), tokens,
                top_k, experts, held, pointer<int64_t>(token), pointer<int64_t>(row),
                pointer<int64_t>(begin), pointer<int32_t>(bins)});
}

// Shapes and dtypes are checked in engines/experts.py; raises ValueError, before anything is written,
// for a token or a bin out of range.
void py_routed_experts(uintptr_t x, uintptr_t token, uintptr_t begin, uintptr_t first,
                       uintptr_t down, uintptr_t y, int64_t tokens, int64_t experts, int64_t hidden,
                       int64_t outputs, int64_t width, uintptr_t bins, uintptr_t counts,
                       uintptr_t rows, int64_t n_bins, int activation, int signal,
                       double threshold) {
#if defined(__x86_64__)
  const py::gil_scoped_release release;
  if (has_amx()) {
    RoutedExperts p{pointer<uint16_t>(x), pointer<int64_t>(token), pointer<int64_t>(begin),
                    pointer<uint16_t>(first), pointer<uint16_t>(down), pointer<uint16_t>(y),
                    tokens, experts, hidden, outputs, {}};
    p.count.bins = pointer<int32_t>(bins);
    p.count.counts = pointer<int32_t>(counts);
    p.count.rows = pointer<int32_t>(rows);
    p.count.n_rows = p.begin[experts];
    p.count.width = width;
    p.count.n_bins = n_bins;
    p.count.dtype = Dtype::bf16;
    p.count.activation = Activation(activation);
    p.count.signal = Signal(signal);
    p.count.threshold = threshold;
    check_indices(p.count);
    p.count.counted = counted_ranges(p.count);
    return routed_experts(p);
  }
#endif
  throw std::runtime_error("routed_experts: needs AMX for bf16; ask has_amx() first");
}

using Array32 = py::array_t<int32_t, py::array::c_style>;
using Array8 = py::array_t<uint8_t, py::array::c_style>;

// Shapes are checked in bits.py; ranges are [begin, end) of all groups, one group after another.
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
  m.def("act_mul_count", &sparcom::py_act_mul_count);
  m.def("select", &sparcom::py_select);
  m.def("intersections", &sparcom::py_intersections);
  m.def("has_amx", &sparcom::py_has_amx);
  m.def("grouped_product", &sparcom::py_grouped_product);
  m.def("route", &sparcom::py_route);
  m.def("routed_experts", &sparcom::py_routed_experts);
  m.def("weighted_sum", &sparcom::py_weighted_sum);
  m.def("info", &sparcom::info);
}
