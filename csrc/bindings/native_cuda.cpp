// sparcom._native_cuda: the CUDA kernel. Pointers, sizes and a stream in, no torch objects. It
// imports where no driver is: cudart is linked statically and looks for one at the first call.
#include <pybind11/pybind11.h>

#include "../check.h"
#include "../counted.h"
#include "../cuda/launcher.h"

namespace py = pybind11;

namespace sparcom {
namespace {

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// ValueError where check() finds a fault, before anything is queued; RuntimeError where the launch
// is refused.
void py_act_mul_count(uintptr_t gate, uintptr_t up, uintptr_t out, uintptr_t bins,
                      uintptr_t counts, uintptr_t rows, uintptr_t keep, uintptr_t fill,
                      uintptr_t expert, int64_t n_rows, int64_t width, int64_t gate_stride,
                      int64_t up_stride, int64_t n_bins, int64_t n_experts, int dtype,
                      int activation, int signal, double threshold, int device, uintptr_t stream) {
  const py::gil_scoped_release release;
  ActMulCount p{pointer<void>(gate),     pointer<void>(up),        pointer<void>(out),
                pointer<int32_t>(bins),  pointer<int32_t>(counts), pointer<int32_t>(rows),
                pointer<void>(keep),     pointer<void>(fill),      pointer<int32_t>(expert),
                n_rows,                  width,                    gate_stride,
                up_stride,               n_bins,                   n_experts,
                Dtype(dtype),            Activation(activation),   Signal(signal),
                threshold,               {}};
  check(p);
  p.counted = counted_ranges(p);
  act_mul_count_cuda(p, device, pointer<void>(stream));
}

py::dict info() {
  const CudaVersions v = cuda_versions();
  py::dict d;
  d["cuda_runtime"] = v.runtime;
  d["cuda_driver"] = v.driver;
  d["cuda_architectures"] = SPARCOM_CUDA_ARCHITECTURES;
  return d;
}

}  // namespace
}  // namespace sparcom

PYBIND11_MODULE(_native_cuda, m) {
  m.def("act_mul_count", &sparcom::py_act_mul_count);
  m.def("info", &sparcom::info);
}
