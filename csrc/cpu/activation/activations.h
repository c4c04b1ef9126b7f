// The activation functions of float vectors, written once for every instruction set V.
//
//   silu(x)      = x / (1 + e^-x)
//   gelu(x)      = x Phi(x),  Phi(-a) = e^(-a^2/2) Q(a) for a >= 0
//   gelu_tanh(x) = x / (1 + e^-2u),  u = sqrt(2/pi) (x + 0.044715 x^3)
//   relu(x)      = max(x, 0),  relu2(x) = relu(x)^2
//
// and those with parameters (../../act_mul_count.h).
//
// The dtype that the result is rounded to sets the accuracy: one unit in the last place for bf16
// and fp16, four for fp32. This holds in the tails too: every form has the tail as a product, none
// as a difference from 1. NaN gives NaN, +inf gives +inf, and -inf gives NaN for silu and gelu, as
// in torch.
#pragma once

#include "../../act_mul_count.h"
#include "../../dtypes.h"

namespace sparcom {

template <class V>
struct Exp {
  typename V::F p, n;  // e^x = p 2^floor(n)
};
// The same of a V that looks 2^(i/16) up in a register: a shorter polynomial is enough.
template <class V>
struct SteppedExp {
  typename V::F root, p, n;  // e^x = root p 2^floor(n), root = 2^(i/16)
};
template <class V, class = void>
constexpr bool has_steps = false;
template <class V>
constexpr bool has_steps<V, std::void_t<decltype(V::split_steps(typename V::F{}))>> = true;

template <class V>
SPARCOM_INLINE Exp<V> joined(Exp<V> e) {
  return e;
}
template <class V>
SPARCOM_INLINE Exp<V> joined(SteppedExp<V> e) {
  return {V::mul(e.root, e.p), e.n};
}

// 1 + e^x
template <class V>
SPARCOM_INLINE typename V::F one_plus(Exp<V> e) {
  return V::add(V::set(1), V::scale(e.p, e.n));
}
template <class V>
SPARCOM_INLINE typename V::F one_plus(SteppedExp<V> e) {
  return V::fma(V::scale(e.root, e.n), e.p, V::set(1));
}

// A polynomial; c: its coefficients, the constant first.
template <class V, int N>
SPARCOM_INLINE typename V::F horner(typename V::F x, const float (&c)[N]) {
  typename V::F y = V::set(c[N - 1]);
  for (int i = N - 2; i >= 0; --i) y = V::fma(y, x, V::set(c[i]));
  return y;
}

// 2^t for 16-bit results. Minimax polynomials on [0, 1]: relative error 2^-18.5 (bf16), 2^-23.6
// (fp16); with steps on [0, 1/16]: 2^-21.1, 2^-29.7.
template <class V, class T, std::enable_if_t<has_steps<V>, int> = 0>
SPARCOM_INLINE SteppedExp<V> exp2_split(typename V::F t, T) {
  const auto part = V::split_steps(t);
  if constexpr (std::is_same_v<T, Bf16>) {
    static constexpr float c[] = {1.00000048f, 0.693024218f, 0.245479584f};
    return {part.root, horner<V>(part.rest, c), part.n};
  } else {
    static constexpr float c[] = {1.0f, 0.693147779f, 0.240179047f, 0.0567181595f};
    return {part.root, horner<V>(part.rest, c), part.n};
  }
}
template <class V, class T, std::enable_if_t<!has_steps<V>, int> = 0>
SPARCOM_INLINE Exp<V> exp2_split(typename V::F t, T) {
  const auto part = V::split(t);
  if constexpr (std::is_same_v<T, Bf16>) {
    static constexpr float c[] = {1.00000259f, 0.693003835f, 0.241442757f, 0.0520114612f,
                                  0.0135341676f};
    return {horner<V>(part.a, c), part.b};
  } else {
    static constexpr float c[] = {0.999999925f,  0.693153073f,   0.240153623f,
                                  0.0558263002f, 0.00898936134f, 0.00187756789f};
    return {horner<V>(part.a, c), part.b};
  }
}

// e^(hi + lo), |lo| small, for fp32: ln 2 in two parts and a minimax polynomial (2^-34). The
// argument is bounded below, so that x = +inf gives e^-inf = 0.
template <class V>
SPARCOM_INLINE Exp<V> exp_split(typename V::F hi, typename V::F lo) {
  static constexpr float c[] = {1.0f,          1.0f,           0.500000011f,   0.16666665f,
                                0.0416662076f, 0.00833357034f, 0.00139493693f, 0.000197738382f};
  const auto x = V::max(V::set(-400), hi);
  const auto n = V::round(V::mul(x, V::set(1.44269504f)));
  const auto r = V::fnma(n, V::set(-2.12194440e-4f), V::fnma(n, V::set(0.693359375f), x));
  return {horner<V>(V::add(r, lo), c), n};
}

// x / (1 + e), where e may exceed all floats: its power of two above 2^64 is taken out and put back
// last, so that the result is right down to the subnormals.
template <class V>
SPARCOM_INLINE typename V::F over_one_plus_far(typename V::F x, Exp<V> e) {
  const auto n = V::floor(V::max(V::set(-400), e.n)), bounded = V::min(V::set(64), n);
  const auto p = V::min(e.p, V::set(2));  // it is infinite or NaN if e^y far exceeds all floats
  const auto d = V::add(V::set(1), V::scale(p, bounded));
  const auto y = V::scale(V::div(x, d), V::sub(bounded, n));
  return V::fma(V::min(V::set(0), x), V::set(0), y);  // -inf * 0: NaN, as torch's -inf / inf
}

// x / (1 + e) of both vectors of a pair.
template <class V, class T, class E>
SPARCOM_INLINE typename V::Pair over_one_plus(typename V::Pair x, E a, E b, T) {
  if (__builtin_expect(V::any_above({a.n, b.n}, 100), 0))
    return {over_one_plus_far<V>(x.a, joined<V>(a)), over_one_plus_far<V>(x.b, joined<V>(b))};
  const auto da = one_plus<V>(a), db = one_plus<V>(b);
  if constexpr (sizeof(T) == 2) return {V::quotient(x.a, da), V::quotient(x.b, db)};
  else return {V::div(x.a, da), V::div(x.b, db)};
}

// e^-x
template <class V, class T>
SPARCOM_INLINE auto exp_minus(typename V::F x, T t) {
  if constexpr (sizeof(T) == 2) return exp2_split<V>(V::mul(x, V::set(-1.44269504f)), t);
  else return exp_split<V>(V::sub(V::set(0), x), V::set(0));
}

template <class V, class T>
SPARCOM_INLINE typename V::Pair silu(typename V::Pair x, T t) {
  return over_one_plus<V>(x, exp_minus<V>(x.a, t), exp_minus<V>(x.b, t), t);
}

// x / (1 + e^(-alpha x)). For fp32 the exponent is kept in two floats.
template <class V, class T>
SPARCOM_INLINE typename V::Pair scaled_silu(typename V::Pair x, float alpha, T t) {
  const auto exp_of = [=](typename V::F v) {
    if constexpr (sizeof(T) == 2) {
      return exp2_split<V>(V::mul(v, V::set(-1.44269504f * alpha)), t);
    } else {
      const auto minus = V::set(-alpha), hi = V::mul(v, minus);
      return exp_split<V>(hi, V::fma(v, minus, V::sub(V::set(0), hi)));
    }
  };
  return over_one_plus<V>(x, exp_of(x.a), exp_of(x.b), t);
}

// tanh, to two units of fp32: an odd polynomial (minimax, relative error 2^-27.8) below 0.625,
// (1 - e) / (1 + e) with e = e^-2|x| beyond.
template <class V>
SPARCOM_INLINE typename V::F tanh(typename V::F x) {
  static constexpr float c[] = {-0.333332819f, 0.133314422f, -0.053739715f, 0.020639087f,
                                -0.00570498677f};
  const auto a = V::min(V::set(20), V::abs(x)), one = V::set(1);
  const auto square = V::mul(x, x);
  const auto near = V::fma(V::mul(x, square), horner<V>(square, c), x);
  const Exp<V> e = exp_split<V>(V::mul(V::set(-2), a), V::set(0));
  const auto small = V::scale(e.p, e.n);
  const auto far = V::div(V::sub(one, small), V::add(one, small));
  const auto signed_far = V::if_negative(x, V::sub(V::set(0), far), far);
  return V::if_negative(V::sub(a, V::set(0.625f)), near, signed_far);
}

// scale tanh(x / scale)
template <class V>
SPARCOM_INLINE typename V::F soft_clamp(typename V::F x, float scale) {
  return V::mul(V::set(scale), tanh<V>(V::div(x, V::set(scale))));
}

// The smaller of x and the limit; NaN stays.
template <class V>
SPARCOM_INLINE typename V::F at_most(typename V::F x, float limit) {
  return V::min(V::set(limit), x);
}

// e^-2u = e^(x (c0 + c1 x^2)). For |x| > 40, gelu_tanh is x or 0 in every dtype.
template <class V, class T>
SPARCOM_INLINE auto gelu_tanh_exp(typename V::F x, T t) {
  const auto z = V::max(V::set(-40), V::min(V::set(40), x));
  const auto square = V::mul(z, z);
  if constexpr (sizeof(T) == 2) {
    const auto slope = V::fma(square, V::set(-0.102943240f), V::set(-2.30220820f));  // times log2 e
    return exp2_split<V>(V::mul(z, slope), t);
  } else {
    // The exponent must be right to 2^-30, relatively. So the rounding errors of each step and of
    // the constants are kept, to first order.
    const auto c0 = V::set(-1.59576917f), c1 = V::set(-0.0713548139f);
    const auto c0_lo = V::set(4.53406804e-8f), c1_lo = V::set(-2.3988324e-9f);
    const auto square_lo = V::fma(z, z, V::sub(V::set(0), square));
    const auto term = V::mul(square, c1);
    const auto term_lo = V::fma(square, c1, V::sub(V::set(0), term));
    const auto sum = V::add(c0, term);
    const auto back = V::sub(sum, c0);
    const auto sum_lo = V::add(V::sub(c0, V::sub(sum, back)), V::sub(term, back));
    auto rest = V::add(V::add(term_lo, sum_lo), c0_lo);
    rest = V::fma(square_lo, c1, V::fma(square, c1_lo, rest));
    const auto hi = V::mul(z, sum);
    return exp_split<V>(hi, V::fma(z, rest, V::fma(z, sum, V::sub(V::set(0), hi))));
  }
}

// Q(a) = r P((K - a) r), r = 1 / (a + K): minimax over [0, 14.6], relative error 2^-18.3 (bf16),
// 2^-21.2 (fp16), 2^-30 (fp32).
template <class V>
SPARCOM_INLINE typename V::F mills(typename V::F a, Bf16) {
  static constexpr float c[] = {0.744413854f,  0.565564432f,    0.315522671f,   0.116029999f,
                                0.0167744467f, -0.00630837379f, -0.00200236419f};
  const auto r = V::quotient(V::set(1), V::add(a, V::set(3.5f)));
  return V::mul(r, horner<V>(V::mul(V::sub(V::set(3.5f), a), r), c));
}
template <class V>
SPARCOM_INLINE typename V::F mills(typename V::F a, Fp16) {
  static constexpr float c[] = {0.744415917f,  0.565558858f,    0.315432536f,    0.116106971f,
                                0.0173320044f, -0.00673077834f, -0.00287341617f, 0.000757184493f};
  const auto r = V::quotient(V::set(1), V::add(a, V::set(3.5f)));
  return V::mul(r, horner<V>(V::mul(V::sub(V::set(3.5f), a), r), c));
}

// a Q(a) p for fp32. Four units for gelu leave one and a half for this: r, s, P and the products in
// two floats each, the second to first order.
template <class V>
SPARCOM_INLINE typename V::F mills_product(typename V::F a, typename V::F p) {
  static constexpr float c[] = {0.509331991f,    0.2300177f,     0.0472626877f,  -0.0104625185f,
                                -0.00696930447f, 0.00102477663f, 0.00103253637f, -0.000244748594f,
                                -0.000131272872f, 5.44635704e-05f};
  static constexpr float slope[] = {0.509331991f, 0.4600354f, 0.1417881f};  // dP/ds, roughly
  const auto zero = V::set(0), one = V::set(1), three = V::set(3);
  const auto c0 = V::set(0.72908369f), c0_lo = V::set(-2.64976884e-8f);
  const auto b = V::add(a, three), b_lo = V::sub(a, V::sub(b, three));
  const auto d = V::sub(three, a), d_lo = V::sub(V::sub(three, d), a);
  const auto r0 = V::div(one, b);
  const auto r = V::fma(r0, V::fnma(b_lo, r0, V::fnma(b, r0, one)), r0);
  const auto s = V::mul(d, r);
  const auto s_lo = V::mul(r, V::fnma(s, b_lo, V::add(d_lo, V::fnma(s, b, d))));
  const auto inner = horner<V>(s, c), term = V::mul(s, inner), sum = V::add(c0, term);
  auto sum_lo = V::add(V::fma(s, inner, V::sub(zero, term)), V::sub(term, V::sub(sum, c0)));
  sum_lo = V::fma(s_lo, horner<V>(s, slope), V::add(sum_lo, c0_lo));
  const auto q = V::mul(r, sum), q_lo = V::fma(r, sum_lo, V::fma(r, sum, V::sub(zero, q)));
  const auto y = V::mul(a, q), y_lo = V::fma(a, q_lo, V::fma(a, q, V::sub(zero, y)));
  return V::fma(y, p, V::mul(y_lo, p));
}

template <class V, class T>
SPARCOM_INLINE typename V::F gelu(typename V::F x, T t) {
  const auto a = V::min(V::set(40), V::abs(x));
  const auto square = V::mul(a, a);
  const auto exp_half_square = [&] {
    if constexpr (sizeof(T) == 2) {
      return joined<V>(exp2_split<V>(V::mul(square, V::set(-0.721347520f)), t));
    } else {
      const auto square_lo = V::fma(a, a, V::sub(V::set(0), square));
      return exp_split<V>(V::mul(V::set(-0.5f), square), V::mul(V::set(-0.5f), square_lo));
    }
  };
  const Exp<V> e = exp_half_square();
  // |tail| = a Phi(-a), its power of two last: the tail is right down to the subnormals.
  const auto tail_over_2n = [&] {
    if constexpr (sizeof(T) == 2) return V::mul(V::mul(a, mills<V>(a, t)), e.p);
    else return mills_product<V>(a, e.p);
  };
  const auto tail = V::scale(tail_over_2n(), e.n);
  const auto negative = V::fma(x, V::set(0), V::sub(V::set(0), tail));  // -inf: NaN, as in torch
  return V::if_negative(x, negative, V::sub(x, tail));
}

template <class V, Activation A, class T>
SPARCOM_INLINE typename V::Pair activate(typename V::Pair x, const Parameters& c, T t) {
  if constexpr (A == Activation::silu) {
    return silu<V>(x, t);
  } else if constexpr (A == Activation::swiglu) {
    return scaled_silu<V>({at_most<V>(x.a, c.limit), at_most<V>(x.b, c.limit)}, c.alpha, t);
  } else if constexpr (A == Activation::swiglu_step) {
    const auto y = silu<V>(x, t);
    return {at_most<V>(y.a, c.limit), at_most<V>(y.b, c.limit)};
  } else if constexpr (A == Activation::situ) {
    const typename V::Pair y{soft_clamp<V>(x.a, c.beta), soft_clamp<V>(x.b, c.beta)};
    return over_one_plus<V>(y, exp_minus<V>(x.a, t), exp_minus<V>(x.b, t), t);
  } else if constexpr (A == Activation::gelu) {
    return {gelu<V>(x.a, t), gelu<V>(x.b, t)};
  } else if constexpr (A == Activation::gelu_tanh) {
    return over_one_plus<V>(x, gelu_tanh_exp<V>(x.a, t), gelu_tanh_exp<V>(x.b, t), t);
  } else {
    const typename V::Pair y{V::max(V::set(0), x.a), V::max(V::set(0), x.b)};
    if constexpr (A == Activation::relu) return y;
    else return {V::mul(y.a, y.a), V::mul(y.b, y.b)};
  }
}

// u(up), not yet rounded, of an activation that shapes it.
template <class V, Activation A>
SPARCOM_INLINE typename V::F shape_up(typename V::F up, const Parameters& c) {
  if constexpr (A == Activation::situ)
    return c.linear_beta > 0 ? soft_clamp<V>(up, c.linear_beta) : up;
  const auto clamped = V::max(V::set(-c.limit), at_most<V>(up, c.limit));
  return A == Activation::swiglu ? V::add(clamped, V::set(c.beta)) : clamped;
}

}  // namespace sparcom
