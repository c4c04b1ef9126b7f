// What several instruction sets share: above all, how blocks are loaded and stored.
//
//   load    the block at p, at any alignment of an element
//   store   a block to p, likewise
//   stream  a store past the caches, if the processor has one; p is aligned to 64 bytes
//   fence   what must follow the last `stream` before another thread may read
#pragma once

#include "../../dtypes.h"

namespace sparcom {

// For an instruction set V that leaves loads and stores to the compiler.
template <class V>
struct PlainMemory {
  template <class T>
  static auto load(const T* p) {
    typename V::template Raw<T> x;
    __builtin_memcpy(&x, p, sizeof x);
    return x;
  }
  template <class T, class Raw>
  static void store(T* p, Raw x) {
    __builtin_memcpy(static_cast<void*>(p), &x, sizeof x);
  }
  template <class T, class Raw>
  static void stream(T* p, Raw x) {
    store(p, x);
  }
  static void fence() {}
};

// For blocks of one vector of 16-bit elements, or two of 32-bit ones. W has the vector types F (of
// floats), I (of integers) and U (of uint32_t), and load, store and stream of one I. In a block of
// bf16, Pair::a is the even elements and b the odd ones, so that widening is a shift and a mask.
template <class W>
struct WideBlocks {
  using F = typename W::F;
  using I = typename W::I;
  using U = typename W::U;
  struct Pair {
    F a, b;
  };
  struct Raw16 {
    I v;
  };
  struct Raw32 {
    I a, b;
  };
  template <class T>
  using Raw = std::conditional_t<sizeof(T) == 2, Raw16, Raw32>;

  template <class T>
  static Raw<T> load(const T* p) {
    const I* const v = reinterpret_cast<const I*>(p);
    if constexpr (sizeof(T) == 2) return {W::load(v)};
    else return {W::load(v), W::load(v + 1)};
  }
  template <class T>
  static void store(T* p, Raw<T> x) {
    I* const v = reinterpret_cast<I*>(p);
    if constexpr (sizeof(T) == 2) {
      W::store(v, x.v);
    } else {
      W::store(v, x.a);
      W::store(v + 1, x.b);
    }
  }
  template <class T>
  static void stream(T* p, Raw<T> x) {
    I* const v = reinterpret_cast<I*>(p);
    if constexpr (sizeof(T) == 2) {
      W::stream(v, x.v);
    } else {
      W::stream(v, x.a);
      W::stream(v + 1, x.b);
    }
  }

 protected:
  // The upper halves of 32-bit words, as floats.
  static F upper_halves(I x) { return F(U(x) & 0xffff0000u); }
  // The bits of x rounded to bf16, to nearest even, in the upper half of each word. A NaN stays a
  // NaN: its lower half is zero, since it comes from a bf16 or from the hardware.
  static I rounded_bits(F x) { return I(U(x) + 0x7fffu + (U(x) >> 16 & 1u)); }
  // The same, but a value exactly between two goes away from zero.
  static I rounded_away(F x) { return I(U(x) + 0x8000u); }
};

}  // namespace sparcom
