// sparcom._native_cuda: the CUDA kernel. It takes pointers, sizes and a stream, no torch objects.
// It imports on a machine without a driver: cudart is linked statically and looks for one at the
// first call.
#include <pybind11/pybind11.h>

#include <cstring>
#include <string>
#include <typeinfo>

#include "../cuda/kernels.h"
#include "../cuda/launcher.h"
#include "call.h"

namespace py = pybind11;

namespace sparcom {
namespace {

// ValueError, before anything is queued, if check() finds a fault; RuntimeError if the launch is
// refused.
void act_mul_count(const ActMulCount& p, int device, uintptr_t stream, bool striped) {
  act_mul_count_cuda(p, device, pointer<void>(stream), striped);
}

template <class T, int n, int A, Call C>
struct ArgumentsOf {};

// The template arguments of a kernel, as they are in its mangled name.
struct Name {
  std::string& arguments;

  template <class T, int n, int A, Call C>
  void of() {
    const char* const name = typeid(ArgumentsOf<T, n, A, C>).name();
    arguments = std::strstr(name, "ArgumentsOf") + std::strlen("ArgumentsOf");
  }
};

// What a device with this many multiprocessors would be told to run. It needs no device, so that
// the machine code can be run in place of one.
py::dict plan(const ActMulCount& p, int multiprocessors, bool striped) {
  const Launch l = launch_parameters(p, multiprocessors, striped);
  std::string arguments;
  with_kernel(p, l, Name{arguments});
  static_assert(sizeof p % alignof(Launch) == 0, "the parameters follow each other without a gap");
  std::string bytes(sizeof p + sizeof l, 0);
  std::memcpy(&bytes[0], &p, sizeof p);
  std::memcpy(&bytes[sizeof p], &l, sizeof l);
  py::dict d;
  d["kernel"] = "act_mul_count" + arguments;
  d["blocks"] = l.blocks;
  d["threads"] = threads_per_block;
  d["parameters"] = py::bytes(bytes);
  return d;
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
  m.def("plan", from_numbers(make_act_mul_count, plan));
  m.def("info", info);
}
