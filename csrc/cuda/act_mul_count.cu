// The kernel around act_mul_count_thread, and its launcher.
#include "act_mul_count.h"

#include <array>
#include <atomic>
#include <stdexcept>
#include <string>

#include "launcher.h"
#include "quantise.h"

namespace sparcom {
namespace {

template <class T, int n, int A, Call C>
__global__ void __launch_bounds__(threads_per_block, blocks_per_multiprocessor)
    act_mul_count(const __grid_constant__ ActMulCount p, const __grid_constant__ Launch l) {
  act_mul_count_thread<T, n, A, C>(p, l, blockIdx.x * threads_per_block + threadIdx.x, AsItIs<T>{});
}

template <class T, int n, int A, Call C, Quantised Q>
__global__ void __launch_bounds__(threads_per_block, blocks_per_multiprocessor)
    act_mul_count_quant(const __grid_constant__ ActMulCount p, const __grid_constant__ Launch l,
                        const __grid_constant__ Quant to) {
  const uint32_t thread = blockIdx.x * threads_per_block + threadIdx.x;
  act_mul_count_thread<T, n, A, C>(p, l, thread, Quantise<T, Q>{to, thread});
}

void succeed(cudaError_t error, const char* call, const std::string& more = "") {
  if (error == cudaSuccess) return;
  throw std::runtime_error("act_mul_count: " + std::string(call) + " must succeed, got " +
                           cudaGetErrorName(error) + ": " + cudaGetErrorString(error) + more);
}

// What a launch must know of a device. code: the compute capability for which the code was compiled
// that runs there, as 10 major + minor; all kernels of this file have the same. It may be less than
// the device's own: if there is code for 8.0 alone, the driver translates its PTX for a device of
// 9.0, and the result has neither the wait for earlier kernels nor accesses of 32 bytes.
struct Properties {
  int multiprocessors, code;
};

Properties properties_of(int device) {
  static std::array<std::atomic<Properties>, 64> known{};
  Properties is = device < int(known.size()) ? known[device].load() : Properties{};
  if (is.multiprocessors) return is;
  succeed(cudaDeviceGetAttribute(&is.multiprocessors, cudaDevAttrMultiProcessorCount, device),
          "cudaDeviceGetAttribute");
  cudaFuncAttributes of{};
  const auto any = &act_mul_count<float, 1, any_activation, Call::any>;
  succeed(cudaFuncGetAttributes(&of, reinterpret_cast<const void*>(any)), "cudaFuncGetAttributes");
  is.code = of.ptxVersion;
  if (device < int(known.size())) known[device].store(is);
  return is;
}

Device launched_on(Properties is) {
  return {is.multiprocessors, moves_32_bytes && is.code >= 100};
}

struct Start {
  const ActMulCount& p;
  const Launch& l;
  bool early;  // before earlier kernels of the stream have ended: device.h
  cudaStream_t stream;
  const Quant* to;

  template <class T, int n, int A, Call C>
  void of() {
    start(reinterpret_cast<const void*>(&act_mul_count<T, n, A, C>));
  }
  template <class T, int n, int A, Call C, Quantised Q>
  void of() {
    start(reinterpret_cast<const void*>(&act_mul_count_quant<T, n, A, C, Q>));
  }

 private:
  void start(const void* kernel) {
    void* arguments[] = {const_cast<ActMulCount*>(&p), const_cast<Launch*>(&l),
                         const_cast<Quant*>(to)};  // a kernel takes as many as it has parameters
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(l.blocks);
    config.blockDim = dim3(threads_per_block);
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = early ? 1 : 0;
    const cudaError_t error = cudaLaunchKernelExC(&config, kernel, arguments);
    succeed(error, "the launch",
            "; rows " + std::to_string(p.n_rows) + ", width " + std::to_string(p.width) +
                ", blocks " + std::to_string(l.blocks));
  }
};

}  // namespace

void act_mul_count_cuda(const ActMulCount& p, int device, void* stream, bool striped, bool pdl) {
  if (p.n_rows == 0) return;
  succeed(cudaSetDevice(device), "cudaSetDevice");
  const Properties is = properties_of(device);
  const Launch l = launch_parameters(p, launched_on(is), striped);
  const bool early = pdl && is.code >= 90;
  with_kernel(p, l, Start{p, l, early, static_cast<cudaStream_t>(stream), nullptr});
}

void act_mul_count_quant_cuda(const ActMulCount& p, const Quant& to, int device, void* stream,
                              bool striped, bool pdl) {
  if (p.n_rows == 0) return;
  succeed(cudaSetDevice(device), "cudaSetDevice");
  const Properties is = properties_of(device);
  const Launch l = quant_launch_parameters(p, launched_on(is), striped);
  const bool early = pdl && is.code >= 90;
  with_quant_kernel(p, to, Start{p, l, early, static_cast<cudaStream_t>(stream), &to});
}

CudaVersions cuda_versions() {
  CudaVersions v{CUDART_VERSION, 0};
  if (cudaDriverGetVersion(&v.driver) != cudaSuccess) v.driver = 0;
  return v;
}

}  // namespace sparcom
