// The vector operations of the kernels in plain C++, for machines without a tuned set, and the
// place that says what each operation means. A block is 2 * lanes elements, held as a pair of
// float vectors; which element sits where in the pair is each set's own affair.
#pragma once

#include <cmath>
#include <cstring>

#include "dtypes.h"

namespace sparcom {

struct Portable {
  static constexpr int lanes = 8;
  struct F {
    float v[lanes];
  };
  struct Pair {
    F a, b;
  };
  // The bits of a block as they lie in memory.
  template <class T>
  struct Raw {
    std::conditional_t<sizeof(T) == 2, uint16_t, uint32_t> v[2 * lanes];
  };
  // Which elements of a block are counted: a byte each, 0 or 1.
  struct Mask {
    uint8_t v[2 * lanes];
  };

  static F set(float x) {
    return map([x](int) { return x; });
  }
  static F add(F a, F b) {
    return map([&](int i) { return a.v[i] + b.v[i]; });
  }
  static F sub(F a, F b) {
    return map([&](int i) { return a.v[i] - b.v[i]; });
  }
  static F mul(F a, F b) {
    return map([&](int i) { return a.v[i] * b.v[i]; });
  }
  // a * b + c. In double: exact product, one rounding of the sum to double, one to float.
  static F fma(F a, F b, F c) {
    return map([&](int i) { return float(double(a.v[i]) * b.v[i] + c.v[i]); });
  }
  // c - a * b
  static F fnma(F a, F b, F c) {
    return map([&](int i) { return float(c.v[i] - double(a.v[i]) * b.v[i]); });
  }
  static F div(F a, F b) {
    return map([&](int i) { return a.v[i] / b.v[i]; });
  }
  // Of two numbers the smaller (larger); b where either is NaN.
  static F min(F a, F b) {
    return map([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
  }
  static F max(F a, F b) {
    return map([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  static F abs(F a) {
    return map([&](int i) { return std::fabs(a.v[i]); });
  }
  // To the nearest integer, ties to even.
  static F round(F a) {
    return map([&](int i) { return std::nearbyint(a.v[i]); });
  }
  // a * 2^floor(n), for n of any size, rounded once.
  static F scale(F a, F n) {
    return map([&](int i) {
      const float bounded = n.v[i] < -252 ? -252 : n.v[i] > 254 ? 254 : n.v[i];
      const int whole = bounded == bounded ? int(std::floor(bounded)) : 0;
      const int half = whole >> 1;
      return a.v[i] * power_of_2(half) * power_of_2(whole - half);
    });
  }
  // x < 0 or x is -0 ? a : b
  static F if_negative(F x, F a, F b) {
    return map([&](int i) { return std::signbit(x.v[i]) ? a.v[i] : b.v[i]; });
  }
  // Whether any lane of either is above the bound.
  static bool any_above(Pair x, float bound) {
    bool any = false;
    for (int i = 0; i < lanes; ++i) any |= x.a.v[i] > bound || x.b.v[i] > bound;
    return any;
  }
  // (t - floor(t), n) with floor(n) == floor(t); (0, n) for t below any exponent, -inf included.
  static Pair split(F t) {
    const F bounded = max(set(-400), t);
    const F n = map([&](int i) { return std::floor(bounded.v[i]); });
    return {sub(bounded, n), n};
  }
  // a / b to about 2^-22, for 1 <= |b| <= 2^110.
  static F quotient(F a, F b) { return div(a, b); }

  template <class T>
  static Raw<T> load(const T* p) {
    Raw<T> x;
    std::memcpy(&x, p, sizeof x);
    return x;
  }
  template <class T>
  static void store(T* p, Raw<T> x) {
    std::memcpy(static_cast<void*>(p), &x, sizeof x);
  }
  // A store that goes past the caches; p is aligned to a block. `fence` orders them.
  template <class T>
  static void stream(T* p, Raw<T> x) {
    store(p, x);
  }
  static void fence() {}
  template <class T>
  static void prefetch(const T* p) {
    __builtin_prefetch(p);
  }

  // The block as floats, and floats as a block, rounded to nearest even.
  template <class T>
  static Pair widen(Raw<T> x, T t) {
    Pair y;
    for (int i = 0; i < lanes; ++i) {
      y.a.v[i] = to_float(x.v[i], t);
      y.b.v[i] = to_float(x.v[lanes + i], t);
    }
    return y;
  }
  template <class T>
  static Raw<T> narrow(Pair y, T t) {
    Raw<T> x;
    for (int i = 0; i < lanes; ++i) {
      x.v[i] = from_float(y.a.v[i], t);
      x.v[lanes + i] = from_float(y.b.v[i], t);
    }
    return x;
  }
  // x rounded to the dtype, to nearest even.
  template <class T>
  static F round_to(F x, T t) {
    return map([&](int i) { return to_float(from_float(x.v[i], t), t); });
  }
  // x rounded to the dtype; where x lies exactly between two values, either.
  template <class T>
  static F near_to(F x, T t) {
    return round_to(x, t);
  }

  // Which elements have bits in [first, first + size), modulo the size of the element.
  template <class R>
  static Mask in_range(R x, uint32_t first, uint32_t size) {
    Mask m;
    for (int i = 0; i < 2 * lanes; ++i)
      m.v[i] = static_cast<decltype(x.v[0] + 0u)>(static_cast<std::decay_t<decltype(x.v[0])>>(
                   x.v[i] - first)) < size;
    return m;
  }
  static Mask either(Mask a, Mask b) {
    for (int i = 0; i < 2 * lanes; ++i) a.v[i] |= b.v[i];
    return a;
  }
  // counters += mask, for the 2 * lanes counters of a block.
  static void tally(uint8_t* counters, Mask m) {
    for (int i = 0; i < 2 * lanes; ++i) counters[i] = uint8_t(counters[i] + m.v[i]);
  }

 private:
  template <class Fn>
  static F map(Fn f) {
    F y;
    for (int i = 0; i < lanes; ++i) y.v[i] = f(i);
    return y;
  }
  static float float_of(uint32_t u) {
    float x;
    std::memcpy(&x, &u, sizeof x);
    return x;
  }
  static uint32_t bits_of(float x) {
    uint32_t u;
    std::memcpy(&u, &x, sizeof u);
    return u;
  }
  static float power_of_2(int n) { return float_of(uint32_t(n + 127) << 23); }
  static float to_float(uint32_t u, float) { return float_of(u); }
  static float to_float(uint16_t u, Bf16) { return float_of(uint32_t(u) << 16); }
  static float to_float(uint16_t u, Fp16) {
    const uint32_t sign = uint32_t(u & 0x8000u) << 16, rest = uint32_t(u & 0x7fffu) << 13;
    if ((u & 0x7c00u) == 0x7c00u) return float_of(sign | rest | 0x7f800000u);
    // The exponent bias differs by 112; a product also makes subnormals right.
    return float_of(sign | bits_of(float_of(rest) * 0x1p112f));
  }
  static uint32_t from_float(float x, float) { return bits_of(x); }
  static uint16_t from_float(float x, Bf16) {
    const uint32_t u = bits_of(x);
    if (x != x) return uint16_t(u >> 16 | 0x40u);
    return uint16_t((u + 0x7fffu + (u >> 16 & 1)) >> 16);
  }
  static uint16_t from_float(float x, Fp16) {
    const uint32_t u = bits_of(x), sign = u >> 16 & 0x8000u, mag = u & 0x7fffffffu;
    if (mag > 0x7f800000u) return uint16_t(sign | 0x7e00u);
    if (mag >= 0x47800000u) return uint16_t(sign | 0x7c00u);
    if (mag < 0x38800000u)  // subnormal: the sum's last place is fp16's smallest step
      return uint16_t(sign | (bits_of(float_of(mag) + 0.5f) - 0x3f000000u));
    return uint16_t(sign | (mag - 0x38000000u + 0xfffu + (mag >> 13 & 1)) >> 13);
  }
};

}  // namespace sparcom
