// The operations of device.h in plain C++, for the emulation.
//
// They are exact except for 2^t and 1/x, where the device is not exact either: its error is near
// 2^-22. Here their error is up to 2^-20, in a direction that a hash and the test's seed choose. So
// what the emulation proves holds for any special function unit with no greater error.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../dtypes.h"

#define SPARCOM_DEVICE inline
#define SPARCOM_UNROLL

namespace sparcom {

inline uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline float fused(float a, float b, float c) { return std::fma(a, b, c); }

inline uint32_t approximation_seed = 0;

inline float with_error(float y) {
  const uint32_t direction = ((bits_of(y) ^ approximation_seed) * 2654435761u) >> 30;
  const float error[] = {-0x1p-20f, 0, 0, 0x1p-20f};
  return y * (1 + error[direction]);
}
inline float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
inline float exp2_approx(float t) { return flushed(with_error(std::exp2(flushed(t)))); }
inline float reciprocal_approx(float x) { return flushed(with_error(1 / flushed(x))); }

inline void load(const void* p, uint32_t (&word)[4]) { std::memcpy(word, p, sizeof word); }
inline void load_once(const void* p, uint32_t (&word)[4]) { load(p, word); }
inline void store(void* p, const uint32_t (&word)[4]) { std::memcpy(p, word, sizeof word); }

constexpr bool moves_32_bytes = true;
inline void load(const void* p, uint32_t (&word)[8]) { std::memcpy(word, p, sizeof word); }
inline void load_once(const void* p, uint32_t (&word)[8]) { load(p, word); }
inline void store(void* p, const uint32_t (&word)[8]) { std::memcpy(p, word, sizeof word); }

inline void wait_for_earlier_kernels() {}
inline void let_the_next_kernel_start() {}

// Where the running thread adds, in order; null: not wanted.
inline std::vector<uintptr_t>* additions = nullptr;

// Atomic here too, as on every device.
inline void atomic_add(int32_t* p, int32_t n) {
  if (additions) additions->push_back(reinterpret_cast<uintptr_t>(p));
  __atomic_fetch_add(p, n, __ATOMIC_RELAXED);
}

inline uint32_t opaque(uint32_t x) { return x; }

inline void add_if_at_least(int32_t& n, float x, float bound) { n += x >= bound; }
inline void add_signs(int32_t& n, float x, float y, float bound) {
  n += (x >= bound) + (y >= bound) * 1024 + (x >= bound && y >= bound) * 1048576;
}

inline uint32_t rounded(float x, Bf16) {
  const uint32_t u = bits_of(x);
  return x == x ? (u + 0x7fffu + (u >> 16 & 1u)) >> 16 : 0x7fffu;
}
inline uint32_t rounded(float x, Fp16) {
  const uint32_t u = bits_of(x), sign = u >> 16 & 0x8000u, size = u & 0x7fffffffu;
  if (x != x) return 0x7fffu;
  if (size >= 0x47800000u) return sign | 0x7c00u;
  // Below the normal numbers the last place of size + 1/2 is fp16's smallest step.
  if (size < 0x38800000u) return sign | (bits_of(float_of(size) + 0.5f) - 0x3f000000u);
  return sign | (size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13;
}
template <class Half>
uint32_t pack(float low, float high, Half t) {
  return rounded(low, t) | rounded(high, t) << 16;
}

inline float low_half(uint32_t word, Bf16) { return float_of(word << 16); }
inline float low_half(uint32_t word, Fp16) {
  const uint32_t sign = (word & 0x8000u) << 16, rest = (word & 0x7fffu) << 13;
  // The exponent bias differs by 112; multiplying makes subnormals right as well.
  const uint32_t number = bits_of(float_of(rest) * 0x1p112f);
  return float_of(sign | ((word & 0x7c00u) == 0x7c00u ? rest | 0x7f800000u : number));
}
template <class Half>
float high_half(uint32_t word, Half t) {
  return low_half(word >> 16, t);
}

// Rounding to float first changes nothing: a float has twice a half's digits and two more.
template <class Half>
uint32_t mul_halves(uint32_t a, uint32_t b, Half t) {
  return pack(low_half(a, t) * low_half(b, t), high_half(a, t) * high_half(b, t), t);
}
template <class Half>
uint32_t add_halves(uint32_t a, uint32_t b, Half t) {
  return pack(low_half(a, t) + low_half(b, t), high_half(a, t) + high_half(b, t), t);
}

template <class Half>
uint32_t max_halves(uint32_t a, uint32_t b, Half t) {
  const auto larger = [](float x, float y) { return x != x || y != y ? NAN : std::fmax(x, y); };
  return pack(larger(low_half(a, t), low_half(b, t)), larger(high_half(a, t), high_half(b, t)), t);
}

// How the running thread gets x of another of its warp; bindings/warp.h sets it.
inline uint32_t (*shuffle_xor)(uint32_t x, uint32_t apart) = nullptr;

inline uint32_t low_halves(uint32_t a, uint32_t b) { return (a & 0xffffu) | b << 16; }
inline uint32_t high_halves(uint32_t a, uint32_t b) { return a >> 16 | (b & 0xffff0000u); }
inline uint32_t low_bytes(uint32_t a, uint32_t b) { return (a & 0xffu) | (b & 0xffu) << 8; }

inline void store_pair(void* p, const uint32_t (&word)[2]) { std::memcpy(p, word, sizeof word); }

}  // namespace sparcom
