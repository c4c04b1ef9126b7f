// The machine operations that the kernel uses, on a device; device_emulated.h has the same in plain
// C++. So one source of the kernel runs on both.
#pragma once

#include <cstdint>

#include "../dtypes.h"

#ifndef __CUDACC__
#include "device_emulated.h"
#else

#define SPARCOM_DEVICE __device__ __forceinline__
#define SPARCOM_UNROLL _Pragma("unroll")

namespace sparcom {

SPARCOM_DEVICE uint32_t bits_of(float x) { return __float_as_uint(x); }
SPARCOM_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }
SPARCOM_DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }

// 2^t and 1/x by the special function unit, which takes subnormals as zero.
SPARCOM_DEVICE float exp2_approx(float t) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(t));
  return y;
}
SPARCOM_DEVICE float reciprocal_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

SPARCOM_DEVICE void load(const void* p, uint32_t (&word)[4]) {
  const uint4 x = *static_cast<const uint4*>(p);
  word[0] = x.x, word[1] = x.y, word[2] = x.z, word[3] = x.w;
}
// For memory that is not read again: it leaves the caches first.
SPARCOM_DEVICE void load_once(const void* p, uint32_t (&word)[4]) {
  const uint4 x = __ldcs(static_cast<const uint4*>(p));
  word[0] = x.x, word[1] = x.y, word[2] = x.z, word[3] = x.w;
}
SPARCOM_DEVICE void store(void* p, const uint32_t (&word)[4]) {
  *static_cast<uint4*>(p) = make_uint4(word[0], word[1], word[2], word[3]);
}

// True where a thread can move 32 bytes at once: on sm_100 and later, by CUDA 12.9 and later.
// Elsewhere the code that would is left out. In code for the host: true if a device may.
constexpr bool moves_32_bytes =
#ifdef __CUDA_ARCH__
    __CUDA_ARCH__ >= 1000 &&
#endif
    __CUDACC_VER_MAJOR__ * 100 + __CUDACC_VER_MINOR__ >= 1209;

SPARCOM_DEVICE void load(const void* p, uint32_t (&word)[8]) {
  asm volatile("ld.global.v8.b32 {%0, %1, %2, %3, %4, %5, %6, %7}, [%8];"
               : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3]), "=r"(word[4]),
                 "=r"(word[5]), "=r"(word[6]), "=r"(word[7])
               : "l"(p)
               : "memory");
}
SPARCOM_DEVICE void load_once(const void* p, uint32_t (&word)[8]) {
  asm volatile("ld.global.cs.v8.b32 {%0, %1, %2, %3, %4, %5, %6, %7}, [%8];"
               : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3]), "=r"(word[4]),
                 "=r"(word[5]), "=r"(word[6]), "=r"(word[7])
               : "l"(p)
               : "memory");
}
SPARCOM_DEVICE void store(void* p, const uint32_t (&word)[8]) {
  asm volatile("st.global.v8.b32 [%0], {%1, %2, %3, %4, %5, %6, %7, %8};"
               :
               : "l"(p), "r"(word[0]), "r"(word[1]), "r"(word[2]), "r"(word[3]), "r"(word[4]),
                 "r"(word[5]), "r"(word[6]), "r"(word[7])
               : "memory");
}

// Programmatic dependent launch, on sm_90 and later. A kernel may start while earlier ones run; here
// it waits until they have ended and what they wrote can be read. No access to memory comes before.
SPARCOM_DEVICE void wait_for_earlier_kernels() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The next kernel may start, once every block has come by or returned. This comes after the wait, so
// that what the next one does before its own wait overlaps with this kernel, but with none before.
SPARCOM_DEVICE void let_the_next_kernel_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

SPARCOM_DEVICE void atomic_add(int32_t* p, int32_t n) { atomicAdd(p, n); }

// x, such that the compiler computes what follows from it here, and keeps no register for it.
SPARCOM_DEVICE uint32_t opaque(uint32_t x) {
  asm volatile("" : "+r"(x));
  return x;
}

// n += x >= bound, in two instructions; the C++ expression takes three.
SPARCOM_DEVICE void add_if_at_least(int32_t& n, float x, float bound) {
  asm("{.reg .pred p; setp.ge.f32 p, %1, %2; @p add.s32 %0, %0, 1;}"
      : "+r"(n)
      : "f"(x), "f"(bound));
}

// n += 1 if x >= bound, += 2^10 if y is, += 2^20 if both are.
SPARCOM_DEVICE void add_signs(int32_t& n, float x, float y, float bound) {
  asm("{.reg .pred p, q; setp.ge.f32 p, %1, %3; setp.ge.f32 q, %2, %3; @p add.s32 %0, %0, 1;"
      " @q add.s32 %0, %0, 1024; and.pred p, p, q; @p add.s32 %0, %0, 1048576;}"
      : "+r"(n)
      : "f"(x), "f"(y), "f"(bound));
}

// Two floats as the two halves of a word, rounded to nearest even; and back.
SPARCOM_DEVICE uint32_t pack(float low, float high, Bf16) {
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
SPARCOM_DEVICE uint32_t pack(float low, float high, Fp16) {
  uint32_t word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
SPARCOM_DEVICE float low_half(uint32_t word, Bf16) { return float_of(word << 16); }
SPARCOM_DEVICE float high_half(uint32_t word, Bf16) { return float_of(word & 0xffff0000u); }
SPARCOM_DEVICE float low_half(uint32_t word, Fp16) {
  float x;
  asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, l;}" : "=f"(x) : "r"(word));
  return x;
}
SPARCOM_DEVICE float high_half(uint32_t word, Fp16) {
  float x;
  asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, h;}" : "=f"(x) : "r"(word));
  return x;
}

// Both halves at once, each result rounded once. sm_80 has only the fused operation for bf16; x * y
// + -0 is x * y, and x * 1 + y is x + y, zeros and their signs included.
SPARCOM_DEVICE uint32_t fused_halves(uint32_t a, uint32_t b, uint32_t c, Bf16) {
  uint32_t word;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(word) : "r"(a), "r"(b), "r"(c));
  return word;
}
SPARCOM_DEVICE uint32_t fused_halves(uint32_t a, uint32_t b, uint32_t c, Fp16) {
  uint32_t word;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(word) : "r"(a), "r"(b), "r"(c));
  return word;
}
template <class Half>
SPARCOM_DEVICE uint32_t mul_halves(uint32_t a, uint32_t b, Half t) {
  return fused_halves(a, b, 0x80008000u, t);
}
template <class Half>
SPARCOM_DEVICE uint32_t add_halves(uint32_t a, uint32_t b, Half t) {
  return fused_halves(a, std::is_same_v<Half, Bf16> ? 0x3f803f80u : 0x3c003c00u, b, t);
}

// Of both halves at once, the larger number; NaN if either is.
SPARCOM_DEVICE uint32_t max_halves(uint32_t a, uint32_t b, Bf16) {
  uint32_t word;
  asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(word) : "r"(a), "r"(b));
  return word;
}
SPARCOM_DEVICE uint32_t max_halves(uint32_t a, uint32_t b, Fp16) {
  uint32_t word;
  asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(word) : "r"(a), "r"(b));
  return word;
}

// x of the lane whose number differs in the bits of `apart`. All threads of the warp that have not
// returned must come by.
SPARCOM_DEVICE uint32_t shuffle_xor(uint32_t x, uint32_t apart) {
  return __shfl_xor_sync(0xffffffffu, x, apart);
}

// The low or high halves of two words, or their low bytes, as the parts of a word.
SPARCOM_DEVICE uint32_t low_halves(uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x5410); }
SPARCOM_DEVICE uint32_t high_halves(uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x7632); }
SPARCOM_DEVICE uint32_t low_bytes(uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x0040); }

SPARCOM_DEVICE void store_pair(void* p, const uint32_t (&word)[2]) {
  *static_cast<uint2*>(p) = make_uint2(word[0], word[1]);
}

}  // namespace sparcom

#endif

namespace sparcom {

// x as e4m3fn: to nearest even, beyond 448 as 448, NaN as 0x7f. Adding the power of two whose last
// place is the step of fp8 around x leaves the number of steps in the last bits of the sum.
SPARCOM_DEVICE uint32_t fp8_of(float x) {
  constexpr uint32_t most = 0x43e00000u, nan = 0x43f00000u;  // 448 and 480, the code after its own
  const uint32_t size = bits_of(x) & 0x7fffffffu;
  const uint32_t near = size > 0x7f800000u ? nan : size < most ? size : most;
  const uint32_t binade = near & 0x7f800000u, least = 121u << 23;  // 2^-6: below it, steps are equal
  const uint32_t power = (binade > least ? binade : least) + (20u << 23);
  const uint32_t steps = bits_of(float_of(near) + float_of(power)) - power;
  return (steps + (power >> 20) - (141u << 3)) | (bits_of(x) >> 24 & 0x80u);
}

// Two floats as bytes of e4m3fn, the first one low.
SPARCOM_DEVICE uint32_t fp8_pair(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return low_bytes(fp8_of(low), fp8_of(high));
#endif
}

}  // namespace sparcom
