// Where the rows of act_mul_count_quant go: 8-bit numbers, 128 columns to a scale.
//
// A group of 128 columns is 16 neighbouring threads, half a warp. Its largest magnitude takes one
// shuffle for each doubling, 4, of a word that holds those of two rows, since h has 16 bits. The rows
// of all threads of a warp are the same, so that they come by together: a row has a whole number of
// warps, and the threads beyond its columns return at once.
//
// Quotients are IEEE 754's: an estimate, corrected by its exact remainder (`quotient`). 1/scale, for
// each row, is the special function unit's, corrected likewise, and its error does not show.
//
// Bytes. bf16, gated: 5 per element in place of 6, and 4 for each scale.
#pragma once

#include "../act_mul_count_quant.h"
#include "act_mul_count.h"

namespace sparcom {

constexpr uint32_t group_threads = quant_group / 8;

template <Quantised Q>
constexpr float largest_quantised = Q == Quantised::fp8 ? 448 : 127;

// What every quotient by a divisor needs of it. b: finite and not 0; 0 with r = 0 gives 0 for every
// finite dividend, as dividing by infinity does, and with r = NaN it gives NaN.
struct Divisor {
  float b, r;  // r: near 1 / b
};

// a / b of a 16-bit number and a scale of one, if r is within 1 unit of 1 / b; the tests try them all.
// A zero keeps its sign: the remainder has that of b q - a, which makes it +0.
SPARCOM_DEVICE float quotient(float a, Divisor d) {
  const float q = a * d.r;
  return fused(fused(d.b, q, -a), -d.r, q);
}

SPARCOM_DEVICE Divisor divisor(float b) {
  const bool finite = b < float_of(0x7f800000u);
  const float r = reciprocal_approx(b);
  return {finite ? b : 0.0f, finite ? fused(fused(-b, r, 1), r, r) : r};
}

// The scale of a group; NaN and infinity stay what they are.
template <Quantised Q>
SPARCOM_DEVICE float scale_of(float largest, bool ue8m0) {
  constexpr float most = largest_quantised<Q>;
  if (!(largest < float_of(0x7f800000u))) return largest;
  const float scale = quotient(Lane::max(largest, quant_eps), {most, 1 / most});
  if (!ue8m0) return scale;
  return float_of((bits_of(Lane::max(scale, quant_eps)) + 0x7fffffu) & 0x7f800000u);
}

// The two bytes of two numbers, the first one low. Beyond the largest they are the largest.
template <Quantised Q>
SPARCOM_DEVICE uint32_t quantised_pair(float low, float high) {
  if constexpr (Q == Quantised::fp8) return fp8_pair(low, high);
  // Whole numbers, to nearest even, lie in the last bits of this sum. Beyond 127 there is none.
  else return low_bytes(bits_of(low + 0x1.8p23f), bits_of(high + 0x1.8p23f));
}

// The bytes of four quotients. No loop: with all activations in one kernel, the compiler unrolls none
// here, and the numbers would go through local memory.
template <Quantised Q>
SPARCOM_DEVICE uint32_t quantised_word(const float* x, Divisor by) {
  return low_halves(quantised_pair<Q>(quotient(x[0], by), quotient(x[1], by)),
                    quantised_pair<Q>(quotient(x[2], by), quotient(x[3], by)));
}

template <class T, Quantised Q>
struct Quantise {
  using Out = uint8_t;
  using V = Vec<T, 8>;
  static constexpr bool quantised = true;

  const Quant& to;
  uint32_t thread;
  float* scale = nullptr;  // of the thread's group in the next row

  SPARCOM_DEVICE void begin(int64_t row, uint32_t col) {
    scale = to.scales + row * to.row_stride + int64_t(col / quant_group) * to.group_stride;
  }
  SPARCOM_DEVICE void pass(int rows) { scale += rows * to.row_stride; }

  // h: of one row or two. written[j]: whether row j is.
  template <int rows>
  SPARCOM_DEVICE void store(const ActMulCount& p, const V (&h)[rows], const bool (&written)[rows],
                            const Place<T, 8, uint8_t>& at) const {
    const uint32_t both = group_maximum(h[0], h[rows - 1]);
    SPARCOM_UNROLL for (int j = 0; j < rows; ++j) {
      const float s = scale_of<Q>(j ? high_half(both, T{}) : low_half(both, T{}), to.ue8m0);
      if (!written[j]) continue;
      float x[8];
      h[j].widen(x);
      const Divisor by = divisor(s);
      uint32_t word[2] = {quantised_word<Q>(x, by), quantised_word<Q>(x + 4, by)};
      // Of NaN, and of infinities, there is no whole number; all else in their group is 0.
      if (Q == Quantised::int8 && by.b == 0) word[0] = word[1] = 0;
      store_pair(at.out + j * p.width, word);
      if (thread % group_threads == 0) scale[j * to.row_stride] = s;
    }
  }

 private:
  // The largest magnitudes of the group in two rows, the first one low.
  static SPARCOM_DEVICE uint32_t group_maximum(const V& first, const V& second) {
    const uint32_t a = largest_words(first), b = largest_words(second);
    uint32_t both = max_halves(low_halves(a, b), high_halves(a, b), T{});
    SPARCOM_UNROLL for (uint32_t apart = group_threads / 2; apart > 0; apart /= 2)
      both = max_halves(both, shuffle_xor(both, apart), T{});
    return both;
  }
  // Of the even elements low, of the odd ones high.
  static SPARCOM_DEVICE uint32_t largest_words(const V& v) {
    constexpr uint32_t no_signs = 0x7fff7fffu;
    return max_halves(max_halves(v.word[0] & no_signs, v.word[1] & no_signs, T{}),
                      max_halves(v.word[2] & no_signs, v.word[3] & no_signs, T{}), T{});
  }
};

}  // namespace sparcom
