// act_mul_count on a CUDA device, for callers that know nothing of CUDA.
#pragma once

#include "../act_mul_count.h"
#include "../act_mul_count_quant.h"

namespace sparcom {

// Queues the kernel on a stream (a cudaStream_t) of a device and returns. It neither waits nor
// allocates, so CUDA graphs can capture it. `check` has passed; all pointers are of that device,
// and p.counted is filled in. striped: the layout of counts and signs (count_layout.h). pdl:
// programmatic dependent launch, where the kernel's code has it (9.0 and later). Throws
// std::runtime_error if the launch is refused.
void act_mul_count_cuda(const ActMulCount& p, int device, void* stream, bool striped, bool pdl);

// The same of act_mul_count_quant.
void act_mul_count_quant_cuda(const ActMulCount& p, const Quant& to, int device, void* stream,
                              bool striped, bool pdl);

struct CudaVersions {
  int runtime;  // built in, 13000 for 13.0
  int driver;   // the newest that the driver supports; 0: no driver
};

CudaVersions cuda_versions();

}  // namespace sparcom
