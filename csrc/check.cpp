#include "check.h"

#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/launch.h"

namespace sparcom {
namespace {

struct Span {
  const char* name;
  uintptr_t begin, end;
  int64_t alignment;
  bool written;
};

Span span(const char* name, const void* p, int64_t elements, int64_t size, bool written = false) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(p);
  return {name, begin, begin + (p ? uintptr_t(elements * size) : 0), size, written};
}

[[noreturn]] void fail(const std::string& message) {
  throw std::invalid_argument("act_mul_count: " + message);
}

// [first, end) in words.
std::string within(int64_t first, int64_t end) {
  return "in " + std::to_string(first) + ".." + std::to_string(end - 1);
}

}  // namespace

void check_signs(const ActMulCount& p, bool gated) {
  if (!p.signs || (gated && p.signal == Signal::gate && p.threshold == 0)) return;
  const char* const got = !gated                      ? "no up"
                          : p.signal != Signal::gate ? "signal \"product\""
                                                      : "another threshold";
  fail(std::string("signs must come with up, signal \"gate\" and threshold 0, got ") + got);
}

namespace {

// written: what the call writes besides its counts.
void check_memory(const ActMulCount& p, const std::vector<Span>& written) {
  const int64_t size = element_size(p.dtype);
  if (p.step == 2 && static_cast<const char*>(p.up) - static_cast<const char*>(p.gate) != size)
    fail("gate and up must be x[:, ::2] and x[:, 1::2] of one tensor x if neither has unit stride");
  std::vector<Span> spans = written;
  const Span others[] = {
      span("counts", p.counts, p.n_bins * p.width, 4, true),
      span("rows", p.rows, p.n_bins, 4, true),
      span("signs", p.signs, 2 * p.n_bins * p.width, 4, true),
      span("gate", p.gate, (p.n_rows - 1) * p.gate_stride + (p.width - 1) * p.step + 1, size),
      span("up", p.up, (p.n_rows - 1) * p.up_stride + (p.width - 1) * p.step + 1, size),
      span("bins", p.bins, p.n_rows, 4),
      span("keep", p.keep, p.n_experts * p.width, size),
      span("fill", p.fill, p.n_experts * p.width, size),
      span("expert", p.expert, p.n_rows, 4),
  };
  spans.insert(spans.end(), std::begin(others), std::end(others));
  for (const Span& a : spans) {
    if (a.begin % uintptr_t(a.alignment) != 0)
      fail(std::string(a.name) + " must be aligned to its elements of " +
           std::to_string(a.alignment) + " bytes; copy it with .clone()");
    for (const Span& b : spans)
      if (a.written && &a != &b && a.begin < b.end && b.begin < a.end)
        fail(std::string(a.name) + " must not share memory with " + b.name +
             ", since it is written; give it its own with .clone()");
  }
}

void check_threshold(const ActMulCount& p) {
  if (!std::isfinite(p.threshold))
    fail("threshold must be a finite number, got " + std::to_string(p.threshold));
}

}  // namespace

void check(const ActMulCount& p) {
  check_threshold(p);
  if (p.n_rows == 0 || p.width == 0) return;
  check_signs(p, p.up);
  check_memory(p, {span("out", p.out, p.n_rows * p.width, element_size(p.dtype), true)});
}

void check(const ActMulCount& p, const Quant& to) {
  check_threshold(p);
  if (p.n_rows == 0) return;
  check_signs(p, p.up);
  if (p.dtype == Dtype::fp32 || p.width == 0 || p.width % quant_group != 0)
    fail("gate must have 16 bits and a width of whole groups of 128 to be quantised, got width " +
         std::to_string(p.width));
  if (!vectors_fit(p))
    fail("gate, up, q, keep and fill, and each row of gate and up, must be aligned to 16 bytes to be "
         "quantised on CUDA, and take turns only in an activation with parameters; copy them with "
         ".contiguous()");
  const int64_t groups = p.width / quant_group;
  check_memory(p, {span("q", p.out, p.n_rows * p.width, 1, true),
                   span("scales", to.scales,
                        (p.n_rows - 1) * to.row_stride + (groups - 1) * to.group_stride + 1, 4,
                        true)});
}

void check_indices(const ActMulCount& p) {
  for (int64_t r = 0; r < p.n_rows; ++r) {
    if (p.bins[r] < -1 || p.bins[r] >= p.n_bins)
      fail("bins[" + std::to_string(r) + "] must be " + within(-1, p.n_bins) + ", got " +
           std::to_string(p.bins[r]) + "; counts has one row per bin, and -1 is not counted");
    if (p.expert && (p.expert[r] < 0 || p.expert[r] >= p.n_experts))
      fail("expert[" + std::to_string(r) + "] must be " + within(0, p.n_experts) + ", got " +
           std::to_string(p.expert[r]) + "; keep and fill have one row per expert");
  }
}

}  // namespace sparcom
