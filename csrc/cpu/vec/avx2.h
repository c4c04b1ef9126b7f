// The vector operations of the kernels on AVX2 with FMA and F16C (Haswell, Zen and later).
// portable.h defines each one.
#pragma once

#include <immintrin.h>

#include "blocks.h"

namespace sparcom {

struct Avx2Words {
  using F = __m256;
  using I = __m256i;
  typedef uint32_t U __attribute__((vector_size(32)));
  static I load(const I* p) { return _mm256_loadu_si256(p); }
  static void store(I* p, I x) { _mm256_storeu_si256(p, x); }
  static void stream(I* p, I x) { _mm256_stream_si256(p, x); }
};

struct Avx2 : WideBlocks<Avx2Words> {
  static constexpr int lanes = 8;
  using Mask = __m128i;  // 16 bytes, each 0 or 255

  static F set(float x) { return _mm256_set1_ps(x); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F fnma(F a, F b, F c) { return _mm256_fnmadd_ps(a, b, c); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F abs(F a) { return _mm256_andnot_ps(set(-0.0f), a); }
  static F round(F a) { return _mm256_round_ps(a, 8); }
  static F floor(F a) { return _mm256_floor_ps(a); }
  static F scale(F a, F n) {
    // 2^n in two factors, so that results down to the subnormals are reached with one rounding.
    const F bounded = max(set(-252), min(set(254), n));
    const __m256i whole = _mm256_cvttps_epi32(floor(bounded));
    const __m256i half = _mm256_srai_epi32(whole, 1);
    return mul(mul(a, power_of_2(half)), power_of_2(_mm256_sub_epi32(whole, half)));
  }
  static F if_negative(F x, F a, F b) { return _mm256_blendv_ps(b, a, x); }
  static bool any_above(Pair x, float bound) {
    return _mm256_movemask_ps(_mm256_or_ps(_mm256_cmp_ps(x.a, set(bound), _CMP_GT_OQ),
                                           _mm256_cmp_ps(x.b, set(bound), _CMP_GT_OQ))) != 0;
  }
  static Pair split(F t) {
    const F bounded = max(set(-400), t), n = floor(bounded);
    return {sub(bounded, n), n};
  }
  static F quotient(F a, F b) {
    const F r = _mm256_rcp_ps(b);
    return mul(mul(a, r), fnma(b, r, set(2)));
  }

  static void fence() { _mm_sfence(); }

  static Pair widen(Raw16 x, Bf16) { return {F(U(x.v) << 16), upper_halves(x.v)}; }
  static Pair widen(Raw16 x, Fp16) {
    return {_mm256_cvtph_ps(_mm256_castsi256_si128(x.v)),
            _mm256_cvtph_ps(_mm256_extracti128_si256(x.v, 1))};
  }
  static Pair widen(Raw32 x, float) { return {F(x.a), F(x.b)}; }

  static Raw16 narrow(Pair x, Bf16) {
    return {_mm256_blend_epi16(_mm256_srli_epi32(rounded_bits(x.a), 16), rounded_bits(x.b), 0xaa)};
  }
  static Raw16 narrow(Pair x, Fp16) {
    return {_mm256_inserti128_si256(_mm256_castsi128_si256(_mm256_cvtps_ph(x.a, 8)),
                                   _mm256_cvtps_ph(x.b, 8), 1)};
  }
  static Raw32 narrow(Pair x, float) { return {I(x.a), I(x.b)}; }

  static F round_to(F x, Bf16) { return upper_halves(rounded_bits(x)); }
  static F round_to(F x, Fp16) { return _mm256_cvtph_ps(_mm256_cvtps_ph(x, 8)); }
  static F round_to(F x, float) { return x; }
  static F near_to(F x, Bf16) { return upper_halves(rounded_away(x)); }
  template <class T>
  static F near_to(F x, T t) {
    return round_to(x, t);
  }

  static Mask in_range(Raw16 x, uint32_t first, uint32_t size) {
    if (size == 0) return _mm_setzero_si128();
    const __m256i offset = _mm256_sub_epi16(x.v, _mm256_set1_epi16(short(first)));
    const __m256i last = _mm256_set1_epi16(short(size - 1));
    const __m256i m = _mm256_cmpeq_epi16(_mm256_min_epu16(offset, last), offset);
    return _mm_packs_epi16(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
  }
  static Mask in_range(Raw32 x, uint32_t first, uint32_t size) {
    if (size == 0) return _mm_setzero_si128();
    const __m256i f = _mm256_set1_epi32(int(first)), last = _mm256_set1_epi32(int(size - 1));
    const __m256i a = _mm256_sub_epi32(x.a, f), b = _mm256_sub_epi32(x.b, f);
    const __m256i both = _mm256_packs_epi32(_mm256_cmpeq_epi32(_mm256_min_epu32(a, last), a),
                                            _mm256_cmpeq_epi32(_mm256_min_epu32(b, last), b));
    const __m256i m = _mm256_permute4x64_epi64(both, 0xd8);
    return _mm_packs_epi16(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
  }
  static Mask either(Mask a, Mask b) { return _mm_or_si128(a, b); }
  static Mask both(Mask a, Mask b) { return _mm_and_si128(a, b); }
  static void tally(uint8_t* counters, Mask m) {
    __m128i* const c = reinterpret_cast<__m128i*>(counters);
    _mm_store_si128(c, _mm_sub_epi8(_mm_load_si128(c), m));
  }

 private:
  static F power_of_2(__m256i n) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
  }
};

}  // namespace sparcom
