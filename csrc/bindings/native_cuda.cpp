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
void act_mul_count(const ActMulCount& p, int device, uintptr_t stream, bool striped, bool pdl) {
  act_mul_count_cuda(p, device, pointer<void>(stream), striped, pdl);
}

void act_mul_count_quant(const ActMulCount& p, const Quant& to, int device, uintptr_t stream,
                         bool striped, bool pdl) {
  act_mul_count_quant_cuda(p, to, device, pointer<void>(stream), striped, pdl);
}

template <class T, int n, int A, Call C>
struct ArgumentsOf {};
template <class T, int n, int A, Call C, Quantised Q>
struct QuantArgumentsOf {};

// The name of a kernel, as it is in its mangled one.
struct Name {
  std::string& name;

  template <class T, int n, int A, Call C>
  void of() {
    name = std::string("act_mul_count") + arguments_in(typeid(ArgumentsOf<T, n, A, C>));
  }
  template <class T, int n, int A, Call C, Quantised Q>
  void of() {
    name = std::string("act_mul_count_quant") + arguments_in(typeid(QuantArgumentsOf<T, n, A, C, Q>));
  }

 private:
  static const char* arguments_in(const std::type_info& of) {
    return std::strstr(of.name(), "ArgumentsOf") + std::strlen("ArgumentsOf");
  }
};

// parameters: of a kernel, one after the other.
template <class... Parameters>
py::dict planned(const std::string& kernel, const Launch& l, const Parameters&... parameters) {
  std::string bytes;
  const auto add = [&](const void* from, size_t size, size_t alignment) {
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
    bytes.append(static_cast<const char*>(from), size);
  };
  (add(&parameters, sizeof parameters, alignof(Parameters)), ...);
  py::dict d;
  d["kernel"] = kernel;
  d["blocks"] = l.blocks;
  d["threads"] = threads_per_block;
  d["parameters"] = py::bytes(bytes);
  return d;
}

// What a device below sm_100 with this many multiprocessors would be told to run. It needs no
// device, so that the machine code can be run in place of one.
py::dict plan(const ActMulCount& p, int multiprocessors, bool striped) {
  const Launch l = launch_parameters(p, {multiprocessors, false}, striped);
  std::string kernel;
  with_kernel(p, l, Name{kernel});
  return planned(kernel, l, p, l);
}

py::dict plan_quant(const ActMulCount& p, const Quant& to, int multiprocessors, bool striped) {
  const Launch l = quant_launch_parameters(p, {multiprocessors, false}, striped);
  std::string kernel;
  with_quant_kernel(p, to, Name{kernel});
  return planned(kernel, l, p, l, to);
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
  m.def("act_mul_count", from_numbers(read_act_mul_count, act_mul_count),
        py::call_guard<py::gil_scoped_release>());
  m.def("act_mul_count_quant", from_numbers(read_act_mul_count, act_mul_count_quant),
        py::call_guard<py::gil_scoped_release>());
  m.def("plan", from_numbers(read_act_mul_count, plan));
  m.def("plan_quant", from_numbers(read_act_mul_count, plan_quant));
  m.def("info", info);
}
