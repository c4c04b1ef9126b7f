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

int multiprocessors_of(int device) {
  static std::array<std::atomic<int>, 64> known{};
  int n = device < int(known.size()) ? known[device].load(std::memory_order_relaxed) : 0;
  if (n) return n;
  succeed(cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device),
          "cudaDeviceGetAttribute");
  if (device < int(known.size())) known[device].store(n, std::memory_order_relaxed);
  return n;
}

struct Start {
  const ActMulCount& p;
  const Launch& l;
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
    const cudaError_t error = cudaLaunchKernel(kernel, dim3(l.blocks), dim3(threads_per_block),
                                               arguments, 0, stream);
    succeed(error, "the launch",
            "; rows " + std::to_string(p.n_rows) + ", width " + std::to_string(p.width) +
                ", blocks " + std::to_string(l.blocks));
  }
};

}  // namespace

void act_mul_count_cuda(const ActMulCount& p, int device, void* stream, bool striped) {
  if (p.n_rows == 0) return;
  succeed(cudaSetDevice(device), "cudaSetDevice");
  const Launch l = launch_parameters(p, multiprocessors_of(device), striped);
  with_kernel(p, l, Start{p, l, static_cast<cudaStream_t>(stream), nullptr});
}

void act_mul_count_quant_cuda(const ActMulCount& p, const Quant& to, int device, void* stream,
                              bool striped) {
  if (p.n_rows == 0) return;
  succeed(cudaSetDevice(device), "cudaSetDevice");
  const Launch l = quant_launch_parameters(p, multiprocessors_of(device), striped);
  with_quant_kernel(p, to, Start{p, l, static_cast<cudaStream_t>(stream), &to});
}

CudaVersions cuda_versions() {
  CudaVersions v{CUDART_VERSION, 0};
  if (cudaDriverGetVersion(&v.driver) != cudaSuccess) v.driver = 0;
  return v;
}

}  // namespace sparcom
