// The bit kernels for AVX-512 with VPOPCNTDQ and VBMI2 (Ice Lake, Zen 4 and later).
#include <immintrin.h>

#include "bits.h"
#include "portable.h"

namespace sparcom {
namespace {

int64_t narrow(const int32_t* values, int64_t n, int32_t base, uint8_t* bytes, uint8_t* top) {
  const __m512i shift = _mm512_set1_epi32(base);
  // The packs leave groups of four in an order that this undoes.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  int64_t found = 0;
  const auto step = [&](int64_t i, auto load) {
    const auto above = [&](int k) {
      return _mm512_sub_epi32(_mm512_max_epi32(load(k), shift), shift);
    };
    const __m512i packed = _mm512_packus_epi16(_mm512_packs_epi32(above(0), above(1)),
                                               _mm512_packs_epi32(above(2), above(3)));
    const __m512i x = _mm512_permutexvar_epi32(order, packed);
    const __mmask64 some = _mm512_test_epi8_mask(x, x);
    _mm512_storeu_si512(bytes + i, x);
    _mm512_storeu_si512(top + found, _mm512_maskz_compress_epi8(some, x));
    found += _mm_popcnt_u64(some);
  };
  int64_t i = 0;
  for (; i + 64 <= n; i += 64)
    step(i, [&](int k) { return _mm512_loadu_si512(values + i + 16 * k); });
  const uint64_t rest = (uint64_t(1) << (n - i)) - 1;  // values beyond n load as 0
  if (i < n)
    step(i, [&](int k) {
      return _mm512_maskz_loadu_epi32(__mmask16(rest >> (16 * k)), values + i + 16 * k);
    });
  return found;
}

int64_t at_least(const uint8_t* bytes, int64_t n, uint8_t cut, uint64_t* words) {
  const __m512i low = _mm512_set1_epi8(char(cut));
  int64_t found = 0;
  for (int64_t i = 0; i < n; i += 64) {
    uint64_t word = _mm512_cmpge_epu8_mask(_mm512_loadu_si512(bytes + i), low);
    if (n - i < 64) word &= (uint64_t(1) << (n - i)) - 1;
    words[i / 64] = word;
    found += _mm_popcnt_u64(word);
  }
  return found;
}

// Sixteen sums in registers, so that 8 loads serve 16 intersections.
void and_counts(const uint8_t* const a[4], const uint8_t* const b[4], int64_t blocks,
                int32_t out[16]) {
  __m512i sum[16];
  for (auto& s : sum) s = _mm512_setzero_si512();
  for (int64_t k = 0; k < blocks; ++k) {
    __m512i y[4];
    for (int j = 0; j < 4; ++j) y[j] = _mm512_loadu_si512(b[j] + 64 * k);
    for (int i = 0; i < 4; ++i) {
      const __m512i x = _mm512_loadu_si512(a[i] + 64 * k);
      for (int j = 0; j < 4; ++j)
        sum[4 * i + j] = _mm512_add_epi64(sum[4 * i + j],
                                          _mm512_popcnt_epi64(_mm512_and_si512(x, y[j])));
    }
  }
  for (int i = 0; i < 16; ++i) out[i] += int32_t(_mm512_reduce_add_epi64(sum[i]));
}

}  // namespace

extern const BitKernels avx512_bit_kernels = {"avx512", narrow, at_least, and_counts};

}  // namespace sparcom
