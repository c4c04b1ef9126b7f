// The vector operations of the kernels in GCC's and Clang's own vectors, for machines without a
// tuned set. This file defines each operation; blocks.h has loads and stores. A block is 2 * lanes
// elements, kept as a pair of float vectors; each set chooses which element is where in the pair.
#pragma once

#include "blocks.h"

namespace sparcom {

struct Portable : PlainMemory<Portable> {
  static constexpr int lanes = 4;
  typedef float F __attribute__((vector_size(16)));
  typedef double D __attribute__((vector_size(32)));
  typedef int32_t I __attribute__((vector_size(16)));
  typedef uint32_t U __attribute__((vector_size(16)));
  typedef uint16_t U16 __attribute__((vector_size(8)));
  struct Pair {
    F a, b;
  };
  // The bits of a block, as in memory.
  struct Raw16 {
    U16 a, b;
  };
  struct Raw32 {
    U a, b;
  };
  template <class T>
  using Raw = std::conditional_t<sizeof(T) == 2, Raw16, Raw32>;
  // All bits of each counted element of a block, none of the others.
  struct Mask {
    I a, b;
  };

  static F set(float x) { return x - F{}; }
  static F add(F a, F b) { return a + b; }
  static F sub(F a, F b) { return a - b; }
  static F mul(F a, F b) { return a * b; }
  static F div(F a, F b) { return a / b; }
  // a * b + c, in double: the product is exact, the sum is rounded to double and then to float.
  static F fma(F a, F b, F c) { return narrowed(wide(a) * wide(b) + wide(c)); }
  // c - a * b
  static F fnma(F a, F b, F c) { return narrowed(wide(c) - wide(a) * wide(b)); }
  // The smaller (larger) of two numbers; b if either is NaN.
  static F min(F a, F b) { return a < b ? a : b; }
  static F max(F a, F b) { return a > b ? a : b; }
  static F abs(F a) { return as_float(as_bits(a) & 0x7fffffffu); }
  // To the nearest integer, ties to even; |a| < 2^22.
  static F round(F a) { return (a + 0x1.8p23f) - 0x1.8p23f; }
  // To the integer below; a large |a| may become anything beyond 2^20.
  static F floor(F a) {
    return __builtin_convertvector(floored(max(set(-0x1p20f), min(set(0x1p20f), a))), F);
  }
  // a * 2^floor(n) for any n, in two factors, so that subnormals are rounded once.
  static F scale(F a, F n) {
    const I whole = floored(max(set(-252), min(set(254), n)));
    const I half = whole >> 1;
    return a * power_of_2(half) * power_of_2(whole - half);
  }
  // (t - floor(t), n) with floor(n) == floor(t); (0, n) for t below all exponents, even -inf.
  static Pair split(F t) {
    const F bounded = max(set(-400), t), n = floor(bounded);
    return {bounded - n, n};
  }
  // x < 0 or x is -0 ? a : b
  static F if_negative(F x, F a, F b) { return I(as_bits(x)) < 0 ? a : b; }
  // True if any lane of either vector is above the bound.
  static bool any_above(Pair x, float bound) {
    const I above = (x.a > bound) | (x.b > bound);
    bool any = false;
    for (int i = 0; i < lanes; ++i) any |= above[i] != 0;
    return any;
  }
  // a / b to about 2^-22, for 1 <= |b| <= 2^110.
  static F quotient(F a, F b) { return a / b; }

  // The block as floats, and floats as a block, rounded to nearest even.
  template <class T>
  static Pair widen(Raw<T> x, T t) {
    return {to_float(__builtin_convertvector(x.a, U), t),
            to_float(__builtin_convertvector(x.b, U), t)};
  }
  template <class T>
  static Raw<T> narrow(Pair x, T t) {
    using Half = decltype(Raw<T>::a);
    return {__builtin_convertvector(from_float(x.a, t), Half),
            __builtin_convertvector(from_float(x.b, t), Half)};
  }
  // x rounded to the dtype, to nearest even.
  template <class T>
  static F round_to(F x, T t) {
    return to_float(from_float(x, t), t);
  }
  // x rounded to the dtype; if x lies exactly between two values, to either.
  template <class T>
  static F near_to(F x, T t) {
    return round_to(x, t);
  }

  // The elements whose bits are in [first, first + size), modulo the element's range.
  template <class R>
  static Mask in_range(R x, uint32_t first, uint32_t size) {
    const uint32_t low = sizeof x.a == sizeof(U16) ? 0xffffu : 0xffffffffu;
    return {I(((__builtin_convertvector(x.a, U) - first) & low) < size),
            I(((__builtin_convertvector(x.b, U) - first) & low) < size)};
  }
  static Mask either(Mask x, Mask y) { return {x.a | y.a, x.b | y.b}; }
  static Mask both(Mask x, Mask y) { return {x.a & y.a, x.b & y.b}; }
  // counters += mask, for the 2 * lanes counters of a block.
  static void tally(uint8_t* counters, Mask m) {
    for (int i = 0; i < lanes; ++i) {
      counters[i] = uint8_t(counters[i] - m.a[i]);
      counters[lanes + i] = uint8_t(counters[lanes + i] - m.b[i]);
    }
  }

 private:
  static D wide(F x) { return __builtin_convertvector(x, D); }
  static F narrowed(D x) { return __builtin_convertvector(x, F); }
  static U as_bits(F x) { return reinterpret_cast<U>(x); }
  static F as_float(U x) { return reinterpret_cast<F>(x); }
  static F power_of_2(I n) { return as_float(U((n + 127) << 23)); }
  static I floored(F x) {  // |x| < 2^31
    const I cut = __builtin_convertvector(x, I);
    return cut + I(__builtin_convertvector(cut, F) > x);
  }

  static F to_float(U x, float) { return as_float(x); }
  static F to_float(U x, Bf16) { return as_float(x << 16); }
  static F to_float(U x, Fp16) {
    // The exponent bias differs by 112; multiplying makes subnormals right as well.
    const U sign = (x & 0x8000u) << 16, rest = (x & 0x7fffu) << 13;
    const U number = as_bits(as_float(rest) * 0x1p112f);
    return as_float(sign | ((x & 0x7c00u) == 0x7c00u ? rest | 0x7f800000u : number));
  }
  static U from_float(F x, float) { return as_bits(x); }
  static U from_float(F x, Bf16) {
    const U u = as_bits(x);
    return x == x ? (u + 0x7fffu + (u >> 16 & 1u)) >> 16 : U(u >> 16 | 0x40u);
  }
  static U from_float(F x, Fp16) {
    const U u = as_bits(x), sign = u >> 16 & 0x8000u, size = u & 0x7fffffffu;
    // Below the normal numbers the last place of size + 1/2 is fp16's smallest step.
    const U small = as_bits(as_float(size) + 0.5f) - 0x3f000000u;
    const U normal = (size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13;
    const U number = size < 0x38800000u ? small : size < 0x47800000u ? normal : U{} + 0x7c00u;
    return sign | (size > 0x7f800000u ? U{} + 0x7e00u : number);
  }
};

}  // namespace sparcom
