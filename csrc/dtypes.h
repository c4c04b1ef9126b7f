// The element types of 16 bits, as tags with the size of their element.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

// For the small functions of the inner loops. GCC does not inline all of them by itself, and then
// passes vectors through memory.
#ifdef __CUDACC__
#define SPARCOM_INLINE __device__ __forceinline__
#else
#define SPARCOM_INLINE inline __attribute__((always_inline))
#endif

namespace sparcom {

struct Bf16 {
  uint16_t bits;
};
struct Fp16 {
  uint16_t bits;
};

}  // namespace sparcom
