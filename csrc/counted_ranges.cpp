#include "counted_ranges.h"

#include <algorithm>
#include <cmath>

namespace sparcom {
namespace {

struct Format {
  uint32_t sign, infinity;  // the bit patterns of -0 and +inf
  int mantissa, bias;       // bits of the mantissa, bias of the exponent
};

Format format(Dtype dtype) {
  switch (dtype) {
    case Dtype::bf16: return {0x8000u, 0x7f80u, 7, 127};
    case Dtype::fp16: return {0x8000u, 0x7c00u, 10, 15};
    default: return {0x80000000u, 0x7f800000u, 23, 127};
  }
}

// The value of a non-negative pattern. It is a double, where each of them is a normal number, so
// the result does not depend on whether this thread flushes subnormals.
double magnitude(Dtype dtype, uint32_t bits) {
  const Format f = format(dtype);
  if (bits >= f.infinity) return bits == f.infinity ? INFINITY : NAN;
  const int exponent = int(bits >> f.mantissa);
  const double fraction = std::ldexp(double(bits & ((1u << f.mantissa) - 1)), -f.mantissa);
  return exponent ? std::ldexp(1 + fraction, exponent - f.bias)
                  : std::ldexp(fraction, 1 - f.bias);
}

// Keys number the values in order: key k > 0 is the k-th positive value, -k its negative, 0 both
// zeros.
double value(Dtype dtype, int64_t key) {
  return key < 0 ? -magnitude(dtype, uint32_t(-key)) : magnitude(dtype, uint32_t(key));
}

// The first key in [lo, hi) for which `holds`, else hi; `holds` is false up to some key, then true.
template <class Holds>
int64_t first_key(int64_t lo, int64_t hi, Holds holds) {
  while (lo < hi) {
    const int64_t mid = lo + (hi - lo) / 2;
    if (holds(mid)) hi = mid;
    else lo = mid + 1;
  }
  return lo;
}

// The least of situ is where (cosh^-2 of y) = beta tanh(y) / (1 + e^-|x|), y = |x| / beta: the left
// side falls, the right side rises.
double least_of_situ(double beta) {
  double low = 0, high = 40 * std::max(beta, 1.0);
  for (int i = 0; i < 200; ++i) {
    const double x = 0.5 * (low + high), t = std::tanh(x / beta);
    (1 - t * t > beta * t / (1 + std::exp(-x)) ? low : high) = x;
  }
  return -high;
}

// Where f is least: left of it f falls or is level, right of it f rises or is level.
double least_at(Activation activation, const Parameters& c) {
  switch (activation) {
    case Activation::silu:
    case Activation::swiglu_step: return -1.2784645427610738;
    case Activation::swiglu: return -1.2784645427610738 / c.alpha;
    case Activation::situ: return least_of_situ(c.beta);
    case Activation::gelu: return -0.7517915246935645;
    case Activation::gelu_tanh: return -0.7524614220710162;
    default: return 0;
  }
}

// The values from key k to +inf, as bit patterns.
Ranges from_key(const Format& f, int64_t k) {
  Ranges out{1, {0, 0, 0}, {0, 0, 0}};  // empty if k is beyond +inf
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

double activate(Activation activation, const Parameters& c, double x) {
  const double root_half = 0.70710678118654752440, root_2_over_pi = 0.79788456080286535588;
  switch (activation) {
    case Activation::silu: return x / (1 + std::exp(-x));
    case Activation::gelu: return 0.5 * x * std::erfc(-x * root_half);
    case Activation::gelu_tanh:
      return x / (1 + std::exp(-2 * root_2_over_pi * (x + 0.044715 * x * x * x)));
    case Activation::relu: return x > 0 ? x : (x <= 0 ? 0 : x);
    case Activation::relu2: return x > 0 ? x * x : (x <= 0 ? 0 : x);
    case Activation::swiglu: {
      const double y = x > c.limit ? c.limit : x;
      return y / (1 + std::exp(-double(c.alpha) * y));
    }
    case Activation::swiglu_step: {
      const double y = x / (1 + std::exp(-x));
      return y > c.limit ? c.limit : y;
    }
    default: return c.beta * std::tanh(x / c.beta) / (1 + std::exp(-x));
  }
}

double value_of_bits(Dtype dtype, uint32_t bits) {
  const uint32_t sign = format(dtype).sign;
  return bits & sign ? -magnitude(dtype, bits ^ sign) : magnitude(dtype, bits);
}

uint32_t bits_of_value(Dtype dtype, double x) {
  const Format f = format(dtype);
  const uint32_t sign = std::signbit(x) ? f.sign : 0;
  if (std::isnan(x)) return f.infinity | 1u << (f.mantissa - 1);
  if (std::isinf(x)) return sign | f.infinity;
  if (x == 0) return sign;
  // In units in the last place; the exponent is at least that of the smallest normal number.
  const int exponent = std::max(std::ilogb(x), 1 - f.bias);
  if (exponent > f.bias) return sign | f.infinity;
  const double units = std::nearbyint(std::ldexp(std::fabs(x), f.mantissa - exponent));
  return sign | ((uint32_t(exponent + f.bias - 1) << f.mantissa) + uint32_t(units));
}

Ranges counted_ranges(const ActMulCount& p) {
  const Dtype dtype = p.dtype;
  const double threshold = p.threshold;
  const Format f = format(dtype);
  const int64_t inf = f.infinity;
  if (threshold == 0) return from_key(f, 1);
  if (p.signal == Signal::product) {
    const auto greater = [&](int64_t k) { return value(dtype, k) > threshold; };
    return from_key(f, first_key(-inf, inf, greater));
  }

  const auto above = [&](int64_t k) {
    return activate(p.activation, p.parameters, value(dtype, k)) > threshold;
  };
  const double least = least_at(p.activation, p.parameters);
  const int64_t bottom = first_key(-inf, inf, [&](int64_t k) { return value(dtype, k) >= least; });
  Ranges out = from_key(f, first_key(bottom, inf + 1, above));
  // The left branch: f is above the threshold from key -inf + 1 up to some key below `bottom`.
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
