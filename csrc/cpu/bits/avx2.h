// The bit kernels on AVX2.
#pragma once

#include <immintrin.h>

#include "portable.h"

namespace sparcom {

struct Avx2Bits {
  static int64_t narrow(const int32_t* values, int64_t n, int32_t base, uint8_t* bytes,
                        uint8_t* top) {
    const __m256i shift = _mm256_set1_epi32(base);
    // The packs leave groups of four in an order that this undoes.
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    int64_t found = 0, i = 0;
    for (; i + 32 <= n; i += 32) {
      const auto load = [&](int64_t k) {
        const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + i + 8 * k));
        return _mm256_sub_epi32(_mm256_max_epi32(x, shift), shift);
      };
      const __m256i packed = _mm256_packus_epi16(_mm256_packs_epi32(load(0), load(1)),
                                                 _mm256_packs_epi32(load(2), load(3)));
      const __m256i x = _mm256_permutevar8x32_epi32(packed, order);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes + i), x);
      const __m256i zero = _mm256_cmpeq_epi8(x, _mm256_setzero_si256());
      for (uint32_t m = ~uint32_t(_mm256_movemask_epi8(zero)); m; m &= m - 1)
        top[found++] = bytes[i + __builtin_ctz(m)];
    }
    return found + PortableBits::narrow(values + i, n - i, base, bytes + i, top + found);
  }

  static int64_t at_least(const uint8_t* bytes, int64_t n, uint8_t cut, uint64_t* words) {
    const __m256i low = _mm256_set1_epi8(char(cut));
    const auto mask = [&](const uint8_t* p) {
      const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
      const __m256i m = _mm256_cmpeq_epi8(_mm256_max_epu8(x, low), x);
      return uint64_t(uint32_t(_mm256_movemask_epi8(m)));
    };
    int64_t found = 0, i = 0;
    for (; i + 64 <= n; i += 64) {
      words[i / 64] = mask(bytes + i) | mask(bytes + i + 32) << 32;
      found += _mm_popcnt_u64(words[i / 64]);
    }
    return found + PortableBits::at_least(bytes + i, n - i, cut, words + i / 64);
  }

  // A table gives the number of bits in each half of a byte; bytes add up for at most 31 steps.
  static void and_counts(const uint8_t* const a[4], const uint8_t* const b[4], int64_t blocks,
                         int32_t out[16]) {
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) out[4 * i + j] += and_count(a[i], b[j], blocks * 2);
  }

 private:
  static int32_t and_count(const uint8_t* a, const uint8_t* b, int64_t vectors) {
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1,
                                           2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(0xf);
    __m256i total = _mm256_setzero_si256();
    for (int64_t k = 0; k < vectors;) {
      __m256i bytes = _mm256_setzero_si256();
      for (const int64_t end = k + 31 < vectors ? k + 31 : vectors; k < end; ++k) {
        const __m256i x = _mm256_and_si256(
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a + 32 * k)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + 32 * k)));
        const __m256i halves = _mm256_add_epi8(
            _mm256_shuffle_epi8(table, _mm256_and_si256(x, low)),
            _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x, 4), low)));
        bytes = _mm256_add_epi8(bytes, halves);
      }
      total = _mm256_add_epi64(total, _mm256_sad_epu8(bytes, _mm256_setzero_si256()));
    }
    const __m128i half =
        _mm_add_epi64(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
    return int32_t(_mm_cvtsi128_si64(half) + _mm_extract_epi64(half, 1));
  }
};

}  // namespace sparcom
