// How an act_mul_count arrives from outside C++: as numbers, in one order.
//
// Python passes them by position, since names would cost microseconds at every layer of every
// decode step. `read_act_mul_count` is the only place in C++ that knows their order, and `_launch`
// in counting/ops.py the only one in Python.
#pragma once

#include "../act_mul_count.h"
#include "../check.h"
#include "../counted_ranges.h"

namespace sparcom {

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// It is not checked yet, and `counted` is not filled in: see `checked`.
inline ActMulCount read_act_mul_count(uintptr_t gate, uintptr_t up, uintptr_t out, uintptr_t bins,
                                      uintptr_t counts, uintptr_t rows, uintptr_t signs,
                                      uintptr_t keep, uintptr_t fill, uintptr_t expert,
                                      int64_t n_rows, int64_t width, int64_t gate_stride,
                                      int64_t up_stride, int64_t step, int64_t n_bins,
                                      int64_t n_experts, int dtype, int activation, float limit,
                                      float alpha, float beta, float linear_beta, int signal,
                                      double threshold) {
  ActMulCount p{};
  p.gate = pointer<void>(gate);
  p.up = pointer<void>(up);
  p.out = pointer<void>(out);
  p.n_rows = n_rows;
  p.width = width;
  p.gate_stride = gate_stride;
  p.up_stride = up_stride;
  p.step = step;
  p.dtype = Dtype(dtype);
  p.activation = Activation(activation);
  p.parameters = {limit, alpha, beta, linear_beta};
  p.bins = pointer<int32_t>(bins);
  p.counts = pointer<int32_t>(counts);
  p.rows = pointer<int32_t>(rows);
  p.signs = pointer<int32_t>(signs);
  p.n_bins = n_bins;
  p.signal = Signal(signal);
  p.threshold = threshold;
  p.keep = pointer<void>(keep);
  p.fill = pointer<void>(fill);
  p.expert = pointer<int32_t>(expert);
  p.n_experts = n_experts;
  return p;
}

// Raises std::invalid_argument if check() finds a fault.
inline ActMulCount checked(ActMulCount p) {
  check(p);
  p.counted = counted_ranges(p);
  return p;
}

// `run` as a function of the numbers of `read`, followed by what `run` takes besides.
template <class... Numbers, class Result, class... More>
auto from_numbers(ActMulCount (*read)(Numbers...), Result (*run)(const ActMulCount&, More...)) {
  return [=](Numbers... numbers, More... more) { return run(checked(read(numbers...)), more...); };
}

// The same of act_mul_count_quant: the numbers of its Quant come between those two.
template <class... Numbers, class Result, class... More>
auto from_numbers(ActMulCount (*read)(Numbers...),
                  Result (*run)(const ActMulCount&, const Quant&, More...)) {
  return [=](Numbers... numbers, uintptr_t scales, int64_t row_stride, int64_t group_stride,
             int dtype, bool ue8m0, More... more) {
    ActMulCount p = read(numbers...);
    const Quant to{pointer<float>(scales), row_stride, group_stride, Quantised(dtype), ue8m0};
    check(p, to);
    p.counted = counted_ranges(p);
    return run(p, to, more...);
  };
}

}  // namespace sparcom
