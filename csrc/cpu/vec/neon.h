// The vector operations of the kernels on NEON (every AArch64 processor).
// portable.h defines each one.
#pragma once

#include <arm_neon.h>

#include "blocks.h"

namespace sparcom {

struct Neon : PlainMemory<Neon> {
  static constexpr int lanes = 4;
  using F = float32x4_t;
  struct Pair {
    F a, b;
  };
  struct Raw16 {
    uint16x8_t v;
  };
  struct Raw32 {
    uint32x4_t a, b;
  };
  template <class T>
  using Raw = std::conditional_t<sizeof(T) == 2, Raw16, Raw32>;
  using Mask = uint8x8_t;  // each 0 or 255

  static F set(float x) { return vdupq_n_f32(x); }
  static F add(F a, F b) { return vaddq_f32(a, b); }
  static F sub(F a, F b) { return vsubq_f32(a, b); }
  static F mul(F a, F b) { return vmulq_f32(a, b); }
  static F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  static F fnma(F a, F b, F c) { return vfmsq_f32(c, a, b); }
  static F div(F a, F b) { return vdivq_f32(a, b); }
  // Not vminq and vmaxq, which return any NaN, not b.
  static F min(F a, F b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
  static F max(F a, F b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
  static F abs(F a) { return vabsq_f32(a); }
  static F round(F a) { return vrndnq_f32(a); }
  static F floor(F a) { return vrndmq_f32(a); }
  static F scale(F a, F n) {
    // 2^n in two factors, so that results down to the subnormals are reached with one rounding.
    const int32x4_t whole = vcvtmq_s32_f32(max(set(-252), min(set(254), n)));
    const int32x4_t half = vshrq_n_s32(whole, 1);
    return mul(mul(a, power_of_2(half)), power_of_2(vsubq_s32(whole, half)));
  }
  static F if_negative(F x, F a, F b) {
    return vbslq_f32(vcltzq_s32(vreinterpretq_s32_f32(x)), a, b);
  }
  static bool any_above(Pair x, float bound) {
    return vmaxvq_u32(vorrq_u32(vcgtq_f32(x.a, set(bound)), vcgtq_f32(x.b, set(bound)))) != 0;
  }
  static Pair split(F t) {
    const F bounded = max(set(-400), t), n = floor(bounded);
    return {sub(bounded, n), n};
  }
  static F quotient(F a, F b) { return vdivq_f32(a, b); }

  // bf16: a holds the even elements and b the odd ones, so that widening is a shift and a mask.
  static Pair widen(Raw16 x, Bf16) {
    const uint32x4_t v = vreinterpretq_u32_u16(x.v);
    return {vreinterpretq_f32_u32(vshlq_n_u32(v, 16)), upper_half(v)};
  }
  static Pair widen(Raw16 x, Fp16) {
    const float16x8_t v = vreinterpretq_f16_u16(x.v);
    return {vcvt_f32_f16(vget_low_f16(v)), vcvt_high_f32_f16(v)};
  }
  static Pair widen(Raw32 x, float) {
    return {vreinterpretq_f32_u32(x.a), vreinterpretq_f32_u32(x.b)};
  }

  static Raw16 narrow(Pair x, Bf16) {
    return {vreinterpretq_u16_u32(vsriq_n_u32(rounded_bits(x.b), rounded_bits(x.a), 16))};
  }
  static Raw16 narrow(Pair x, Fp16) {
    return {vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.a), x.b))};
  }
  static Raw32 narrow(Pair x, float) {
    return {vreinterpretq_u32_f32(x.a), vreinterpretq_u32_f32(x.b)};
  }

  static F round_to(F x, Bf16) { return upper_half(rounded_bits(x)); }
  static F round_to(F x, Fp16) { return vcvt_f32_f16(vcvt_f16_f32(x)); }
  static F round_to(F x, float) { return x; }
  static F near_to(F x, Bf16) {
    return upper_half(vaddq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x8000)));
  }
  template <class T>
  static F near_to(F x, T t) {
    return round_to(x, t);
  }

  static Mask in_range(Raw16 x, uint32_t first, uint32_t size) {
    return vmovn_u16(
        vcltq_u16(vsubq_u16(x.v, vdupq_n_u16(uint16_t(first))), vdupq_n_u16(uint16_t(size))));
  }
  static Mask in_range(Raw32 x, uint32_t first, uint32_t size) {
    const uint32x4_t f = vdupq_n_u32(first), s = vdupq_n_u32(size);
    return vmovn_u16(vcombine_u16(vmovn_u32(vcltq_u32(vsubq_u32(x.a, f), s)),
                                  vmovn_u32(vcltq_u32(vsubq_u32(x.b, f), s))));
  }
  static Mask either(Mask a, Mask b) { return vorr_u8(a, b); }
  static Mask both(Mask a, Mask b) { return vand_u8(a, b); }
  static void tally(uint8_t* counters, Mask m) { vst1_u8(counters, vsub_u8(vld1_u8(counters), m)); }

 private:
  static F upper_half(uint32x4_t x) {
    return vreinterpretq_f32_u32(vandq_u32(x, vdupq_n_u32(0xffff0000u)));
  }
  static F power_of_2(int32x4_t n) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
  }
  // As WideBlocks::rounded_bits.
  static uint32x4_t rounded_bits(F x) {
    const uint32x4_t u = vreinterpretq_u32_f32(x);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    return vaddq_u32(vaddq_u32(u, vdupq_n_u32(0x7fff)), odd);
  }
};

}  // namespace sparcom
