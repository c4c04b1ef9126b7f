// The vector operations of the kernels on AVX-512 (F, BW, DQ, VL: Skylake-SP and later).
// portable.h defines each one.
#pragma once

#include <immintrin.h>

#include "blocks.h"

namespace sparcom {

struct Avx512Words {
  using F = __m512;
  using I = __m512i;
  typedef uint32_t U __attribute__((vector_size(64)));
  static I load(const I* p) { return _mm512_loadu_si512(p); }
  static void store(I* p, I x) { _mm512_storeu_si512(p, x); }
  static void stream(I* p, I x) { _mm512_stream_si512(p, x); }
};

struct Avx512 : WideBlocks<Avx512Words> {
  static constexpr int lanes = 16;
  using Mask = __mmask32;
  struct Steps {
    F root, rest, n;  // t = n' + i / 16 + rest, n' = floor(n), root = 2^(i / 16), 0 <= rest < 1/16
  };

  static F set(float x) { return _mm512_set1_ps(x); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F abs(F a) { return _mm512_abs_ps(a); }
  static F round(F a) { return _mm512_roundscale_ps(a, 8); }
  static F floor(F a) { return _mm512_roundscale_ps(a, 9); }
  static F scale(F a, F n) { return _mm512_scalef_ps(a, n); }
  static F if_negative(F x, F a, F b) {
    return _mm512_mask_blend_ps(_mm512_movepi32_mask(_mm512_castps_si512(x)), b, a);
  }
  static bool any_above(Pair x, float bound) {
    return !_kortestz_mask16_u8(_mm512_cmp_ps_mask(x.a, set(bound), _CMP_GT_OQ),
                                _mm512_cmp_ps_mask(x.b, set(bound), _CMP_GT_OQ));
  }
  static Pair split(F t) { return {_mm512_reduce_ps(t, 9), t}; }
  // As split, in steps of 1/16, whose powers of two lie in a register.
  static Steps split_steps(F t) {
    // The sum is rounded down to a multiple of 1/16; its last four bits are the step.
    const F sum = _mm512_add_round_ps(t, set(0x1.8p19f), 9);
    const F roots = _mm512_setr_ps(1.0f, 1.04427378f, 1.09050773f, 1.13878863f, 1.18920712f,
                                   1.24185781f, 1.29683955f, 1.35425555f, 1.41421356f, 1.47682615f,
                                   1.54221083f, 1.61049033f, 1.68179283f, 1.75625216f, 1.83400809f,
                                   1.91520656f);
    return {_mm512_permutexvar_ps(_mm512_castps_si512(sum), roots), _mm512_reduce_ps(t, 0x49), t};
  }
  // One operation, not the four of an estimate and a Newton step: what waits in the processor's
  // queues is the limit, not the divider.
  static F quotient(F a, F b) { return div(a, b); }

  static void fence() { _mm_sfence(); }

  static Pair widen(Raw16 x, Bf16) { return {F(U(x.v) << 16), upper_halves(x.v)}; }
  static Pair widen(Raw16 x, Fp16) {
    return {_mm512_cvtph_ps(_mm512_castsi512_si256(x.v)),
            _mm512_cvtph_ps(_mm512_extracti64x4_epi64(x.v, 1))};
  }
  static Pair widen(Raw32 x, float) { return {F(x.a), F(x.b)}; }

  static Raw16 narrow(Pair x, Bf16) {
    // All high halves and all low halves; up if low > 1/2, or if low == 1/2 and high is odd.
    const __m512i a = _mm512_castps_si512(x.a), b = _mm512_castps_si512(x.b);
    const __m512i high = _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(a, 16), b);
    const __m512i low = _mm512_mask_blend_epi16(0xaaaaaaaau, a, _mm512_slli_epi32(b, 16));
    const __m512i even = _mm512_andnot_si512(high, _mm512_set1_epi16(1));
    return {_mm512_add_epi16(high, _mm512_srli_epi16(_mm512_subs_epu16(low, even), 15))};
  }
  static Raw16 narrow(Pair x, Fp16) {
    return {_mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtps_ph(x.a, 8)),
                              _mm512_cvtps_ph(x.b, 8), 1)};
  }
  static Raw32 narrow(Pair x, float) { return {I(x.a), I(x.b)}; }

  static F round_to(F x, Bf16) { return upper_halves(rounded_bits(x)); }
  static F round_to(F x, Fp16) { return _mm512_cvtph_ps(_mm512_cvtps_ph(x, 8)); }
  static F round_to(F x, float) { return x; }
  static F near_to(F x, Bf16) { return upper_halves(rounded_away(x)); }
  template <class T>
  static F near_to(F x, T t) {
    return round_to(x, t);
  }

  static Mask in_range(Raw16 x, uint32_t first, uint32_t size) {
    return _mm512_cmplt_epu16_mask(_mm512_sub_epi16(x.v, _mm512_set1_epi16(short(first))),
                                   _mm512_set1_epi16(short(size)));
  }
  static Mask in_range(Raw32 x, uint32_t first, uint32_t size) {
    const __m512i f = _mm512_set1_epi32(int(first)), s = _mm512_set1_epi32(int(size));
    return _mm512_kunpackw(_mm512_cmplt_epu32_mask(_mm512_sub_epi32(x.b, f), s),
                           _mm512_cmplt_epu32_mask(_mm512_sub_epi32(x.a, f), s));
  }
  static Mask either(Mask a, Mask b) { return a | b; }
  static Mask both(Mask a, Mask b) { return a & b; }
  static void tally(uint8_t* counters, Mask m) {
    __m256i* const c = reinterpret_cast<__m256i*>(counters);
    const __m256i x = _mm256_load_si256(c);
    _mm256_store_si256(c, _mm256_mask_add_epi8(x, m, x, _mm256_set1_epi8(1)));
  }
};

// Looks f of the 16-bit dtypes up in a table (../activation/table.h), for processors with fast
// gathers.
struct Avx512Gather : Avx512 {
  static Pair lookup(const float* table, Raw16 x, Bf16) {
    return {_mm512_i32gather_ps(_mm512_and_si512(x.v, _mm512_set1_epi32(0xffff)), table, 4),
            _mm512_i32gather_ps(_mm512_srli_epi32(x.v, 16), table, 4)};
  }
  static Pair lookup(const float* table, Raw16 x, Fp16) {
    const auto at = [&](__m256i half) {
      return _mm512_i32gather_ps(_mm512_cvtepu16_epi32(half), table, 4);
    };
    return {at(_mm512_castsi512_si256(x.v)), at(_mm512_extracti64x4_epi64(x.v, 1))};
  }
};

}  // namespace sparcom
