// The bit kernels in plain C++.
#pragma once

#include <cstdint>
#include <cstring>

namespace sparcom {

struct PortableBits {
  static int64_t narrow(const int32_t* values, int64_t n, int32_t base, uint8_t* bytes,
                        uint8_t* top) {
    int64_t found = 0;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t above = int64_t(values[i]) - base;
      bytes[i] = uint8_t(above < 0 ? 0 : above > 255 ? 255 : above);
      top[found] = bytes[i];
      found += bytes[i] != 0;
    }
    return found;
  }

  static int64_t at_least(const uint8_t* bytes, int64_t n, uint8_t cut, uint64_t* words) {
    int64_t found = 0;
    for (int64_t i = 0; i < n; i += 64) {
      uint64_t word = 0;
      for (int64_t b = 0; b < (n - i < 64 ? n - i : 64); ++b)
        word |= uint64_t(bytes[i + b] >= cut) << b;
      words[i / 64] = word;
      found += __builtin_popcountll(word);
    }
    return found;
  }

  static void and_counts(const uint8_t* const a[4], const uint8_t* const b[4], int64_t blocks,
                         int32_t out[16]) {
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) {
        int64_t total = 0;
        for (int64_t k = 0; k < blocks * 64; k += 8) {
          uint64_t x, y;
          std::memcpy(&x, a[i] + k, 8);
          std::memcpy(&y, b[j] + k, 8);
          total += __builtin_popcountll(x & y);
        }
        out[4 * i + j] += int32_t(total);
      }
  }
};

}  // namespace sparcom
