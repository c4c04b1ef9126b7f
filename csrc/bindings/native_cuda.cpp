// sparcom._native_cuda: the CUDA kernel. It takes pointers, sizes and a stream, no torch objects.
// It imports on a machine without a driver: cudart is linked statically and looks for one at the
// first call.
#include <pybind11/pybind11.h>

#include "../cuda/launcher.h"
#include "call.h"

namespace py = pybind11;

namespace sparcom {
namespace {

// ValueError, before anything is queued, if check() finds a fault; RuntimeError if the launch is
// refused.
void act_mul_count(const ActMulCount& p, int device, uintptr_t stream) {
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
  using namespace sparcom;
  m.def("act_mul_count", from_numbers(make_act_mul_count, act_mul_count),
        py::call_guard<py::gil_scoped_release>());
  m.def("info", info);
}
