// n neighbouring elements of a row in registers: 16 or 32 bytes, or one element.
#pragma once

#include "device.h"

namespace sparcom {

template <class T, int n>
struct Vec {
  static_assert(n == 1 || n * sizeof(T) == 16 || n * sizeof(T) == 32,
                "a vector is 16 or 32 bytes or one element");
  static constexpr int words = n == 1 ? 1 : n * int(sizeof(T)) / 4;
  static constexpr bool halves = sizeof(T) == 2;  // a word holds two elements, the first one low
  using Scalar = std::conditional_t<halves, uint16_t, uint32_t>;

  uint32_t word[words];

  static SPARCOM_DEVICE Vec load(const T* p) {
    Vec v;
    if constexpr (n == 1) v.word[0] = *reinterpret_cast<const Scalar*>(p);
    else sparcom::load(p, v.word);
    return v;
  }
  static SPARCOM_DEVICE Vec load_once(const T* p) {
    if constexpr (n == 1) {
      return load(p);
    } else {
      Vec v;
      sparcom::load_once(p, v.word);
      return v;
    }
  }
  SPARCOM_DEVICE void store(T* p) const {
    if constexpr (n == 1) *reinterpret_cast<Scalar*>(p) = Scalar(word[0]);
    else sparcom::store(p, word);
  }

  SPARCOM_DEVICE void widen(float (&x)[n]) const {
    SPARCOM_UNROLL for (int i = 0; i < n; ++i) {
      if constexpr (!halves) x[i] = float_of(word[i]);
      else x[i] = i % 2 ? high_half(word[i / 2], T{}) : low_half(word[i / 2], T{});
    }
  }
  // x rounded to the dtype, to nearest even.
  static SPARCOM_DEVICE Vec narrow(const float (&x)[n]) {
    Vec v;
    SPARCOM_UNROLL for (int i = 0; i < words; ++i) {
      if constexpr (!halves) v.word[i] = bits_of(x[i]);
      else if constexpr (n == 1) v.word[i] = pack(x[0], 0, T{});
      else v.word[i] = pack(x[2 * i], x[2 * i + 1], T{});
    }
    return v;
  }
  // The elements of 2n in memory that have even places, and those that have odd ones. wide: p is a
  // multiple of 32 bytes, and the device moves so many at once.
  static SPARCOM_DEVICE void load_turns(const T* p, bool wide, Vec& even, Vec& odd) {
    if constexpr (n == 1) {
      even = load(p);
      odd = load(p + 1);
    } else {
      constexpr bool may_be_wide = moves_32_bytes && words == 4;
      uint32_t both[2 * words];
      if constexpr (may_be_wide)
        if (wide) sparcom::load_once(p, both);
      if (!may_be_wide || !wide) {
        const Vec low = load_once(p), high = load_once(p + n);
        SPARCOM_UNROLL for (int i = 0; i < words; ++i)
          both[i] = low.word[i], both[words + i] = high.word[i];
      }
      SPARCOM_UNROLL for (int i = 0; i < words; ++i) {
        const uint32_t first = both[2 * i], second = both[2 * i + 1];
        even.word[i] = halves ? (first & 0xffffu) | second << 16 : first;
        odd.word[i] = halves ? first >> 16 | (second & 0xffff0000u) : second;
      }
    }
  }
  // The bits of element i.
  SPARCOM_DEVICE uint32_t bits(int i) const {
    if constexpr (!halves) return word[i];
    else return i % 2 ? word[i / 2] >> 16 : word[i / 2] & 0xffffu;
  }

  // The product and the sum, each rounded to the dtype.
  friend SPARCOM_DEVICE Vec operator*(const Vec& a, const Vec& b) {
    Vec v;
    SPARCOM_UNROLL for (int i = 0; i < words; ++i) {
      if constexpr (halves) v.word[i] = mul_halves(a.word[i], b.word[i], T{});
      else v.word[i] = bits_of(float_of(a.word[i]) * float_of(b.word[i]));
    }
    return v;
  }
  friend SPARCOM_DEVICE Vec operator+(const Vec& a, const Vec& b) {
    Vec v;
    SPARCOM_UNROLL for (int i = 0; i < words; ++i) {
      if constexpr (halves) v.word[i] = add_halves(a.word[i], b.word[i], T{});
      else v.word[i] = bits_of(float_of(a.word[i]) + float_of(b.word[i]));
    }
    return v;
  }
};

}  // namespace sparcom
