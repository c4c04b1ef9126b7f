#include "counted.h"

#include <cmath>
#include <cstring>

namespace sparcom {
namespace {

struct Format {
  uint32_t sign, infinity;  // the bit patterns of -0 and +inf
};

Format format(Dtype dtype) {
  switch (dtype) {
    case Dtype::bf16: return {0x8000u, 0x7f80u};
    case Dtype::fp16: return {0x8000u, 0x7c00u};
    default: return {0x80000000u, 0x7f800000u};
  }
}

double float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The value of a non-negative pattern.
double magnitude(Dtype dtype, uint32_t bits) {
  if (dtype == Dtype::fp32) return float_of(bits);
  if (dtype == Dtype::bf16) return float_of(bits << 16);
  if (bits == 0x7c00u) return INFINITY;
  const int exponent = int(bits >> 10);
  const double mantissa = double(bits & 0x3ffu) / 1024;
  return exponent ? std::ldexp(1 + mantissa, exponent - 15) : std::ldexp(mantissa, -14);
}

// Keys order the grid: key k > 0 is the k-th positive value, -k its negative, 0 both zeros.
double value(Dtype dtype, int64_t key) {
  return key < 0 ? -magnitude(dtype, uint32_t(-key)) : magnitude(dtype, uint32_t(key));
}

// The first key in [lo, hi) where `holds` (false up to some key, true from there on), else hi.
template <class Holds>
int64_t first_key(int64_t lo, int64_t hi, Holds holds) {
  while (lo < hi) {
    const int64_t mid = lo + (hi - lo) / 2;
    if (holds(mid)) hi = mid;
    else lo = mid + 1;
  }
  return lo;
}

// Where f is least; on its left f falls or is level, on its right it rises.
double least_at(Activation activation) {
  switch (activation) {
    case Activation::silu: return -1.2784645427610738;
    case Activation::gelu: return -0.7517915246935645;
    case Activation::gelu_tanh: return -0.7524614220710162;
    default: return 0;
  }
}

// Values from key `k` to +inf, as patterns.
Ranges from_key(const Format& f, int64_t k) {
  Ranges out{1, {0, 0, 0}, {0, 0, 0}};
  out.first[0] = uint32_t(k > 0 ? k : 0);
  out.size[0] = f.infinity + 1 - out.first[0];
  if (k <= 0) {
    out.n = Ranges::max;
    out.first[1] = f.sign;
    out.size[1] = uint32_t(-k) + 1;
  }
  return out;
}

}  // namespace

double activate(Activation activation, double x) {
  const double root_half = 0.70710678118654752440, root_2_over_pi = 0.79788456080286535588;
  switch (activation) {
    case Activation::silu: return x / (1 + std::exp(-x));
    case Activation::gelu: return 0.5 * x * std::erfc(-x * root_half);
    case Activation::gelu_tanh:
      return x / (1 + std::exp(-2 * root_2_over_pi * (x + 0.044715 * x * x * x)));
    case Activation::relu: return x > 0 ? x : (x <= 0 ? 0 : x);
    default: return x > 0 ? x * x : (x <= 0 ? 0 : x);
  }
}

Ranges counted_ranges(const ActMulCount& p) {
  const Dtype dtype = p.dtype;
  const double threshold = p.threshold;
  const Format f = format(dtype);
  const int64_t inf = f.infinity;
  if (threshold == 0) return from_key(f, 1);
  if (p.signal == Signal::product)
    return from_key(f, first_key(-inf, inf, [&](int64_t k) { return value(dtype, k) > threshold; }));

  const auto above = [&](int64_t k) { return activate(p.activation, value(dtype, k)) > threshold; };
  const double least = least_at(p.activation);
  const int64_t bottom = first_key(-inf, inf, [&](int64_t k) { return value(dtype, k) >= least; });
  Ranges out = from_key(f, first_key(bottom, inf, above));
  // The left branch: keys [-inf + 1, bottom) hold up to some key, then no more.
  const int64_t left_end = first_key(-inf + 1, bottom, [&](int64_t k) { return !above(k); });
  const int64_t far = above(-inf) ? inf : inf - 1;
  if (left_end > -inf + 1) {
    out.n = Ranges::max;
    const uint32_t near = uint32_t(-(left_end - 1));  // the smallest magnitude of the branch
    out.first[2] = f.sign + near;
    out.size[2] = uint32_t(far) - near + 1;
  }
  return out;
}

}  // namespace sparcom
