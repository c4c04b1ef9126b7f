// Sets of components as packed bits: how they are selected from counts, and intersected.
//
// A set of n components is n bits: component i is bit i % 8 of byte i / 8, as
// numpy.packbits(bitorder="little") writes it.
#pragma once

#include <cstdint>

namespace sparcom {

enum class Ties : int { inclusive = 0, exclusive = 1, exact = 2 };

struct Range {
  int64_t begin, end;  // components [begin, end)
};

// For every row and group, the components whose count is at least a cut, as bits.
//
// A group is some ranges of components that are ranked together. Its nominal cut is its size-th
// highest count (0 if the group is smaller). inclusive: count >= max(nominal, 1); exclusive: count
// > nominal; exact: inclusive, minus the surplus among those at the cut: the components with the
// highest splitmix64(component) go first. A count of 0 or less is never selected.
struct Select {
  const int32_t* counts;  // [rows, components]
  int64_t rows, components;
  const Range* ranges;           // the groups' ranges, group after group; no two overlap
  const int64_t* range_offsets;  // [groups + 1] into ranges
  const int64_t* sizes;          // [groups], nominal, at least 1; null: the cuts are given
  int64_t groups;
  Ties ties;
  int32_t* cuts;      // [rows, groups] out: selected from this count on, at most 2^31 - 1; also in,
                      // if sizes is null
  int32_t* selected;  // [rows, groups] out: how many components are selected
  uint8_t* bits;      // [rows, (components + 7) / 8] out
};
void select(const Select& s);

// out[i, j] = |a_i & b_j|.
struct Intersections {
  const uint8_t* a;  // [n, bytes]
  const uint8_t* b;  // [m, bytes]; if it is a, half of the symmetric matrix is computed
  int64_t n, m, bytes;
  int32_t* out;  // [n, m]
};
void intersections(const Intersections& p);

// The inner loops of both, for one instruction set.
struct BitKernels {
  const char* isa;
  // bytes[i] = values[i] - base, saturated to 0..255; base >= 0. Those above 0 are also written to
  // top, one after another; returns how many. Both have room for n rounded up to 64.
  int64_t (*narrow)(const int32_t* values, int64_t n, int32_t base, uint8_t* bytes, uint8_t* top);
  // Bit i of words = bytes[i] >= cut for i < n, and 0 from n to the end of the last word. Returns
  // how many are 1. bytes has room for n rounded up to 64.
  int64_t (*at_least)(const uint8_t* bytes, int64_t n, uint8_t cut, uint64_t* words);
  // out[4 * i + j] += |a_i & b_j|, for i, j < 4, over `blocks` blocks of 64 bytes.
  void (*and_counts)(const uint8_t* const a[4], const uint8_t* const b[4], int64_t blocks,
                     int32_t out[16]);
};

const BitKernels& bit_kernels();  // ../dispatch.h

}  // namespace sparcom
