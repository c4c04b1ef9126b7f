// The activation functions on a device. See ../cpu/activation/activations.h for their formulas.
//
// fp32 runs the same source as the CPU, each operation as IEEE 754 defines it, so both give the
// same bits. bf16 and fp16 leave 2^t and 1/x to the special function unit, which takes a quarter of
// the instructions: a B200 reads 1.3e12 elements of 6 bytes a second and can issue some 26
// instructions for each. The unit's error, near 2^-22, is far below the 2^-12 of rounding to fp16.
//
//   silu(x), gelu_tanh(x) = x / (1 + e^v) = x r         where x >= 0,  r = 1 / (1 + e^-|v|)
//                                         = x e^-|v| r  where x < 0
//
// e^-|v| is the square of its root, and multiplied in two steps, so that the tails are right down
// to the subnormals.
#pragma once

#include "../act_mul_count.h"
#include "../cpu/activation/activations.h"
#include "device.h"

namespace sparcom {

// The operations of ../cpu/activation/activations.h on one float; ../cpu/vec/portable.h defines
// them.
struct Lane {
  using F = float;
  struct Pair {
    F a, b;
  };
  static SPARCOM_DEVICE F set(float x) { return x; }
  static SPARCOM_DEVICE F add(F a, F b) { return a + b; }
  static SPARCOM_DEVICE F sub(F a, F b) { return a - b; }
  static SPARCOM_DEVICE F mul(F a, F b) { return a * b; }
  static SPARCOM_DEVICE F div(F a, F b) { return a / b; }
  static SPARCOM_DEVICE F fma(F a, F b, F c) { return fused(a, b, c); }
  static SPARCOM_DEVICE F fnma(F a, F b, F c) { return fused(-a, b, c); }
  static SPARCOM_DEVICE F min(F a, F b) { return a < b ? a : b; }
  static SPARCOM_DEVICE F max(F a, F b) { return a > b ? a : b; }
  static SPARCOM_DEVICE F abs(F a) { return fabsf(a); }
  static SPARCOM_DEVICE F round(F a) { return (a + 0x1.8p23f) - 0x1.8p23f; }
  static SPARCOM_DEVICE F floor(F a) {
    const F near = round(max(-0x1p20f, min(0x1p20f, a)));
    return near > a ? near - 1 : near;
  }
  static SPARCOM_DEVICE F scale(F a, F n) {
    const int32_t whole = int32_t(bits_of(floor(max(-252, min(254, n))) + 0x1.8p23f) - 0x4b400000u);
    const int32_t half = whole >> 1;
    return a * power_of_2(half) * power_of_2(whole - half);
  }
  static SPARCOM_DEVICE F power_of_2(int32_t n) { return float_of(uint32_t(n + 127) << 23); }
  static SPARCOM_DEVICE Pair split(F t) {
    const F bounded = max(-400, t), n = floor(bounded);
    return {bounded - n, n};
  }
  static SPARCOM_DEVICE F if_negative(F x, F a, F b) { return int32_t(bits_of(x)) < 0 ? a : b; }
  static SPARCOM_DEVICE bool any_above(Pair x, float bound) { return x.a > bound || x.b > bound; }
  static SPARCOM_DEVICE F quotient(F a, F b) { return a * reciprocal_approx(b); }
};

// x / (1 + e^v) from root = e^(-|v|/2), where v has the sign of -x. -inf * 0 is NaN, as torch's
// -inf / inf.
SPARCOM_DEVICE float over_one_plus(float x, float root) {
  const float r = reciprocal_approx(fused(root, root, 1));
  const float s = x < 0 ? root : 1;
  return (x * s) * (s * r);
}

SPARCOM_DEVICE float silu_half(float x) {
  return over_one_plus(x, exp2_approx(-0.721347520f * Lane::abs(x)));  // log2(e) / 2
}

SPARCOM_DEVICE float gelu_tanh_half(float x) {
  const float slope = fused(x * x, -0.0514716200f, -1.15110410f);  // of u, times log2(e)
  return over_one_plus(x, exp2_approx(slope * Lane::abs(x)));
}

template <class Half>
SPARCOM_DEVICE float gelu_half(float x, Half t) {
  const float a = Lane::min(40, Lane::abs(x));
  const float root = exp2_approx(-0.360673760f * (a * a));  // e^(-a^2/4)
  const float tail = a * mills<Lane>(a, t) * root * root;   // a Phi(-a)
  return x < 0 ? fused(x, 0, -tail) : x - tail;             // -inf: NaN, as in torch
}

SPARCOM_DEVICE float relu_half(float x) { return x <= 0 ? 0 : x; }  // NaN stays

SPARCOM_DEVICE float swiglu_half(float x, const Parameters& c) {
  const float y = at_most<Lane>(x, c.limit);
  return over_one_plus(y, exp2_approx(-0.721347520f * c.alpha * Lane::abs(y)));
}

SPARCOM_DEVICE float situ_half(float x, const Parameters& c) {
  return over_one_plus(soft_clamp<Lane>(x, c.beta), exp2_approx(-0.721347520f * Lane::abs(x)));
}

template <class Half>
SPARCOM_DEVICE float activate_half(int activation, float x, const Parameters& c, Half t) {
  switch (activation) {
    case int(Activation::silu): return silu_half(x);
    case int(Activation::gelu): return gelu_half(x, t);
    case int(Activation::gelu_tanh): return gelu_tanh_half(x);
    case int(Activation::relu): return relu_half(x);
    case int(Activation::relu2): return relu_half(x) * relu_half(x);
    case int(Activation::swiglu): return swiglu_half(x, c);
    case int(Activation::swiglu_step): return at_most<Lane>(silu_half(x), c.limit);
    default: return situ_half(x, c);
  }
}

SPARCOM_DEVICE Lane::Pair activate_pair(int activation, Lane::Pair x, const Parameters& c) {
  constexpr float t = 0;
  switch (activation) {
    case int(Activation::silu): return activate<Lane, Activation::silu>(x, c, t);
    case int(Activation::gelu): return activate<Lane, Activation::gelu>(x, c, t);
    case int(Activation::gelu_tanh): return activate<Lane, Activation::gelu_tanh>(x, c, t);
    case int(Activation::relu): return activate<Lane, Activation::relu>(x, c, t);
    case int(Activation::relu2): return activate<Lane, Activation::relu2>(x, c, t);
    case int(Activation::swiglu): return activate<Lane, Activation::swiglu>(x, c, t);
    case int(Activation::swiglu_step): return activate<Lane, Activation::swiglu_step>(x, c, t);
    default: return activate<Lane, Activation::situ>(x, c, t);
  }
}

// u(up), not yet rounded, of an activation that shapes it.
SPARCOM_DEVICE float shape_up_of(int activation, float up, const Parameters& c) {
  switch (activation) {
    case int(Activation::swiglu): return shape_up<Lane, Activation::swiglu>(up, c);
    case int(Activation::swiglu_step): return shape_up<Lane, Activation::swiglu_step>(up, c);
    default: return shape_up<Lane, Activation::situ>(up, c);
  }
}

// x = f(x), not yet rounded to T.
template <class T, int n>
SPARCOM_DEVICE void activate_all(int activation, float (&x)[n], const Parameters& c) {
  if constexpr (sizeof(T) == 2) {
    SPARCOM_UNROLL for (int i = 0; i < n; ++i) x[i] = activate_half(activation, x[i], c, T{});
  } else {
    SPARCOM_UNROLL for (int i = 0; i < n; i += 2) {
      const Lane::Pair y = activate_pair(activation, {x[i], x[n == 1 ? i : i + 1]}, c);
      x[i] = y.a;
      if constexpr (n > 1) x[i + 1] = y.b;
    }
  }
}

}  // namespace sparcom
