// One call of act_mul_count, read from stdin; its results go to stdout. The tests build it to run
// an instruction set that this machine lacks, under a user-mode emulator.
//
// in:  the numbers of read_act_mul_count in their order; in place of each pointer an int64 count of
//      bytes (0: null) and the bytes
// out: out, counts, rows, signs if wanted; on stderr the name of the instruction set, and a line for an error
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <tuple>
#include <vector>

#include "../cpu/activation/launcher.h"
#include "../cpu/dispatch.h"
#include "call.h"

namespace sparcom {
namespace {

void read(void* to, size_t bytes) {
  if (std::fread(to, 1, bytes, stdin) != bytes) std::exit(2);
}

template <class T>
T next() {
  T number;
  read(&number, sizeof number);
  return number;
}

// What a pointer points to, kept for the whole call. A size below 0 stands for what lies that many
// bytes behind the start of the last one: gate and up that take turns.
template <>
uintptr_t next<uintptr_t>() {
  static std::vector<std::vector<char>> kept;
  const int64_t size = next<int64_t>();
  if (size < 0) return reinterpret_cast<uintptr_t>(kept.back().data()) - uintptr_t(size);
  kept.emplace_back(size_t(size));
  std::vector<char>& bytes = kept.back();
  read(bytes.data(), bytes.size());
  return bytes.empty() ? 0 : reinterpret_cast<uintptr_t>(bytes.data());
}

template <class... Numbers>
ActMulCount next_call(ActMulCount (*read)(Numbers...)) {
  const std::tuple<Numbers...> numbers{next<Numbers>()...};  // braces: from left to right
  return std::apply(read, numbers);
}

void write(const void* from, int64_t bytes) { std::fwrite(from, 1, size_t(bytes), stdout); }

void run() {
  const ActMulCount p = checked(next_call(read_act_mul_count));
  check_indices(p);
  act_mul_count_cpu(p);
  write(p.out, p.n_rows * p.width * element_size(p.dtype));
  write(p.counts, p.n_bins * p.width * 4);
  write(p.rows, p.n_bins * 4);
  if (p.signs) write(p.signs, 2 * p.n_bins * p.width * 4);
}

}  // namespace
}  // namespace sparcom

int main() {
  std::fprintf(stderr, "%s", sparcom::kernels().isa);
  try {
    sparcom::run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "\n%s", error.what());
    return 1;
  }
}
