// Where the count of a column lies in its row of counts and of signs.
//
// In order, column c is at place c. A thread owns 8 neighbouring columns (4 of fp32), so then each
// of its additions would send every thread of a warp to another sector of 32 bytes: 256 sectors for
// the 256 counts that a warp adds. Striped, those counts take 32 sectors:
//
//   column  256 b + 8 l + i   is at place   256 b + 32 i + l          0 <= l < 32, 0 <= i < 8
//
// so that the i-th addition of a warp covers 32 neighbouring words. The last block of a row may be
// shorter: of `left` columns, the first 8 * lanes, lanes = left / 8, lie at lanes * i + l, and the
// rest in order. The layout depends on the width alone, not on the dtype or on alignment, so that
// every call may add to the same counts. python/sparcom/counting/layout.py reads it.
#pragma once

#include <cstdint>

#include "device.h"

namespace sparcom {

// Column col + i of a thread is at place first + i * stride. Only that of column 0 is 0.
struct Places {
  uint32_t first, stride;
};

// Of a thread's columns: one, or 4 or 8 from a multiple of their number.
SPARCOM_DEVICE Places places_of(uint32_t col, uint32_t width, bool striped) {
  constexpr uint32_t block = 256, group = 8;
  const uint32_t inside = col % block, left = width - (col - inside);
  const uint32_t lanes = (left < block ? left : block) / group;
  if (!striped || inside >= lanes * group) return {col, 1};
  return {col - inside + inside % group * lanes + inside / group, lanes};
}

}  // namespace sparcom
