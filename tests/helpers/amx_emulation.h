// The instructions of AMX that csrc uses, done by loops: for processors without AMX.
//
// Included before every source (`-include`); it changes the one that is compiled for AMX. The order
// of sums is that of Intel's manual for TDPBF16PS: the even and the odd products of a row in a fused
// sum each, both added to the destination at the end. Denormal numbers are kept, which AMX takes as 0.
#ifdef __AMX_TILE__
#include <cpuid.h>
#include <immintrin.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace emulated {

struct Tile {
  int rows = 0, bytes = 0;
  uint8_t data[16][64];
};
inline thread_local Tile tiles[8];
inline thread_local bool configured = false;

inline void load_config(const void* config) {
  const auto* bytes = static_cast<const uint8_t*>(config);
  for (int t = 0; t < 8; ++t) {
    uint16_t wide;
    std::memcpy(&wide, bytes + 16 + 2 * t, 2);
    tiles[t] = Tile{bytes[48 + t], wide, {}};
  }
  configured = bytes[0] == 1;
}

inline Tile& tile(int at) {
  if (!configured || tiles[at].rows == 0) __builtin_trap();  // #UD
  return tiles[at];
}

inline void zero(int at) { std::memset(tile(at).data, 0, sizeof tile(at).data); }

inline void load(int at, const void* base, int64_t stride) {
  zero(at);
  for (int r = 0; r < tile(at).rows; ++r)
    std::memcpy(tile(at).data[r], static_cast<const char*>(base) + r * stride, tile(at).bytes);
}

inline void store(int at, void* base, int64_t stride) {
  for (int r = 0; r < tile(at).rows; ++r)
    std::memcpy(static_cast<char*>(base) + r * stride, tile(at).data[r], tile(at).bytes);
}

inline float bf16(const uint8_t* from) {
  uint16_t bits;
  std::memcpy(&bits, from, 2);
  const uint32_t wide = uint32_t(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

inline void multiply(int to, int left, int right) {
  Tile &c = tile(to), &a = tile(left), &b = tile(right);
  if (a.bytes / 4 != b.rows || a.rows != c.rows || b.bytes != c.bytes) __builtin_trap();  // #UD
  for (int m = 0; m < c.rows; ++m) {
    float even[16] = {}, odd[16] = {};
    for (int k = 0; k < b.rows; ++k) {
      const float first = bf16(a.data[m] + 4 * k), second = bf16(a.data[m] + 4 * k + 2);
      for (int n = 0; n < c.bytes / 4; ++n) {
        even[n] = std::fma(first, bf16(b.data[k] + 4 * n), even[n]);
        odd[n] = std::fma(second, bf16(b.data[k] + 4 * n + 2), odd[n]);
      }
    }
    for (int n = 0; n < c.bytes / 4; ++n) {
      float sum;
      std::memcpy(&sum, c.data[m] + 4 * n, 4);
      sum += even[n] + odd[n];
      std::memcpy(c.data[m] + 4 * n, &sum, 4);
    }
  }
}

// What cpuid says of a processor with AMX for bf16.
inline int cpuid(unsigned leaf, unsigned part, unsigned* a, unsigned* b, unsigned* c, unsigned* d) {
  const int known = __get_cpuid_count(leaf, part, a, b, c, d);
  if (leaf == 7 && part == 0) *d |= 1u << 22 | 1u << 24;
  return known;
}

}  // namespace emulated

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig emulated::load_config
#define _tile_release() (emulated::configured = false)
#define _tile_zero emulated::zero
#define _tile_loadd emulated::load
#define _tile_stored emulated::store
#define _tile_dpbf16ps emulated::multiply
#define __get_cpuid_count emulated::cpuid
#define syscall(...) 0  // Linux permits it
#endif
