// act_mul_count of one call read from stdin, its results written to stdout: how the tests run an
// instruction set that this machine lacks, under a user-mode emulator. Built by the tests alone.
//
// in:  int64 [n_rows, width, gate_stride, up_stride, n_bins, n_experts, dtype, activation, signal],
//      float64 threshold, then gate, up, bins, counts, rows, keep, fill, expert, each as an int64
//      count of bytes (0: null) and the bytes
// out: out, counts, rows; the name of the instruction set on stderr
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <vector>

#include "../check.h"
#include "../counted.h"
#include "../cpu/dispatch.h"
#include "../cpu/activation/launch.h"

namespace {

void read(void* to, size_t bytes) {
  if (std::fread(to, 1, bytes, stdin) != bytes) std::exit(2);
}

struct Buffer {
  std::vector<char> bytes;
  Buffer() {
    int64_t size;
    read(&size, sizeof size);
    bytes.resize(size_t(size));
    read(bytes.data(), bytes.size());
  }
  template <class T>
  T* as() {
    return bytes.empty() ? nullptr : reinterpret_cast<T*>(bytes.data());
  }
};

void write(const void* from, size_t bytes) { std::fwrite(from, 1, bytes, stdout); }

}  // namespace

int main() {
  using namespace sparcom;
  int64_t n[9];
  double threshold;
  read(n, sizeof n);
  read(&threshold, sizeof threshold);
  Buffer gate, up, bins, counts, rows, keep, fill, expert;
  std::vector<char> out(size_t(n[0] * n[1] * element_size(Dtype(n[6]))));
  ActMulCount p{gate.as<void>(),      up.as<void>(),     out.data(),
                bins.as<int32_t>(),   counts.as<int32_t>(), rows.as<int32_t>(),
                keep.as<void>(),      fill.as<void>(),   expert.as<int32_t>(),
                n[0], n[1], n[2], n[3], n[4], n[5],
                Dtype(n[6]), Activation(n[7]), Signal(n[8]), threshold, {}};
  std::fprintf(stderr, "%s", kernels().isa);
  try {
    check(p);
    check_indices(p);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "\n%s", error.what());
    return 1;
  }
  p.counted = counted_ranges(p);
  act_mul_count_cpu(p);
  write(out.data(), out.size());
  write(counts.bytes.data(), counts.bytes.size());
  write(rows.bytes.data(), rows.bytes.size());
}
