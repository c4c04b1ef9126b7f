// intersections, as bits.h defines them.
//
// A matrix product over bits, in three blockings. 4 x 4 sums at a time are in registers. 4 KiB of
// each row at a time, so that eight rows stay in the first-level cache. 128 x 128 rows at a time,
// so that their pieces stay in the second-level cache. Each such square is a task; if a == b, only
// those on and above the diagonal.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "../parallel.h"
#include "bits.h"

namespace sparcom {
namespace {

constexpr int64_t square = 128, piece = 4096, block = 64;  // rows, bytes, bytes

struct Square {
  int64_t i, j, rows, columns;  // out[i : i + rows, j : j + columns]
};

// Rows i .. i + 3 of a matrix, from one byte on; the last row stands in for rows past the end.
struct Four {
  const uint8_t* row[4];
  Four(const uint8_t* base, int64_t i, int64_t end, int64_t bytes, int64_t from) {
    for (int64_t k = 0; k < 4; ++k) row[k] = base + std::min(i + k, end - 1) * bytes + from;
  }
};

// sums[128, 128] += the intersections of one piece of the rows, in blocks of 64 bytes.
void add_piece(const uint8_t* a, const uint8_t* b, int64_t bytes, int64_t from, int64_t blocks,
               const Square& s, std::vector<int32_t>& sums) {
  for (int64_t i = 0; i < s.rows; i += 4) {
    const Four x(a, s.i + i, s.i + s.rows, bytes, from);
    for (int64_t j = 0; j < s.columns; j += 4) {
      const Four y(b, s.j + j, s.j + s.columns, bytes, from);
      int32_t out[16] = {};
      bit_kernels().and_counts(x.row, y.row, blocks, out);
      for (int64_t k = 0; k < 16; ++k) sums[size_t((i + k / 4) * square + j + k % 4)] += out[k];
    }
  }
}

// The last bytes of some rows, less than a block of each, padded with zeros to a block.
std::vector<uint8_t> tails(const uint8_t* base, int64_t i, int64_t rows, int64_t bytes) {
  const int64_t from = bytes / block * block;
  std::vector<uint8_t> out(size_t(rows * block));
  for (int64_t r = 0; r < rows; ++r)
    std::memcpy(&out[size_t(r * block)], base + (i + r) * bytes + from, size_t(bytes - from));
  return out;
}

void add_square(const Intersections& p, const Square& s) {
  std::vector<int32_t> sums(size_t(square * square));
  const int64_t whole = p.bytes / block * block;
  for (int64_t from = 0; from < whole; from += piece)
    add_piece(p.a, p.b, p.bytes, from, std::min(piece, whole - from) / block, s, sums);
  if (whole < p.bytes) {
    const auto a = tails(p.a, s.i, s.rows, p.bytes), b = tails(p.b, s.j, s.columns, p.bytes);
    add_piece(a.data(), b.data(), block, 0, 1, {0, 0, s.rows, s.columns}, sums);
  }
  for (int64_t i = 0; i < s.rows; ++i)
    for (int64_t j = 0; j < s.columns; ++j) {
      const int32_t sum = sums[size_t(i * square + j)];
      p.out[(s.i + i) * p.m + s.j + j] = sum;
      if (p.a == p.b) p.out[(s.j + j) * p.m + s.i + i] = sum;
    }
}

}  // namespace

void intersections(const Intersections& p) {
  std::vector<Square> squares;
  for (int64_t i = 0; i < p.n; i += square)
    for (int64_t j = p.a == p.b ? i : 0; j < p.m; j += square)
      squares.push_back({i, j, std::min(square, p.n - i), std::min(square, p.m - j)});
  const int64_t n = int64_t(squares.size());
  std::atomic<int64_t> next{0};
  parallel_for_threads(int(std::min<int64_t>(n, max_threads())), [&](int, int) {
    for (int64_t t; (t = next.fetch_add(1)) < n;) add_square(p, squares[size_t(t)]);
  });
}

}  // namespace sparcom
