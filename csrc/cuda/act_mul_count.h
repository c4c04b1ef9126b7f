// act_mul_count on CUDA: what one thread does. It also compiles as plain C++, for the emulation.
//
//   h[r, i]             = round(f(gate[r, i])) * u(up[r, i])       (ungated: round(f(gate[r, i])))
//   out[r, i]           = h[r, i] * keep[expert[r], i] + fill[expert[r], i]     (each optional)
//   counts[bins[r], i] += x in counted,  x = gate[r, i] or h[r, i]
//   rows[bins[r]]      += 1
//   signs[0, bins[r], i] += up[r, i] > 0,  signs[1, bins[r], i] += gate[r, i] > 0 and up[r, i] > 0
//
// Shapes: gate, up, out [n_rows, width]; bins, expert [n_rows]; counts [n_bins, width];
// rows [n_bins]; keep, fill [n_experts, width]; signs [2, n_bins, width] or null. A row whose bin or
// expert is out of range is not counted (its `out` is h), so that `rows` shows it.
//
// Threads. One thread owns 16 bytes of columns (8 of bf16 or fp16, 4 of fp32; one column if memory
// is not aligned) in `rows_per_thread` neighbouring rows. Neighbouring threads own neighbouring
// columns, so a warp reads 512 bytes of a row at once. A thread loads two rows before it uses the
// first. The rows of a run (neighbours with the same bin) add up in registers; at its end, every
// sum that is not zero is added to counts. Threads share these atomic adds of integers and nothing
// else: no shared memory, shuffle or barrier. So no order of the threads can change a result, and a
// plain loop over them is a faithful emulation.
//
// Bytes. bf16, gated: 6 per element for the activation; to read and write the counts, at most 8 per
// element of each run, or part of a run that a thread has. A count that stays 0 costs nothing. For
// an instruction of 100 tokens, with 60 experts of which a token takes 4:
//
//   rows                                         rows per run    bytes per element of a row
//   dense, prompts                                        100    6 + 0.08    +1.3 %
//   dense, decode (a row per instruction)                   1    6 + 8       +133 %
//   routed, in token order                                  1    6 + 8       +133 %
//   routed, sorted by expert, then by token     100 4/60 = 6.7    6 + 1.2     +20 %
//   routed, decode                                          1    6 + 8       +133 %
//
// So routed rows come sorted by expert, and by token within an expert, which is also the order in
// which experts are multiplied. If `rows_per_thread` cuts a run, its counts cost 8 bytes again, but
// in the L2 cache, which holds them.
#pragma once

#include <type_traits>

#include "../act_mul_count.h"
#include "activations.h"
#include "launch.h"
#include "vec.h"

namespace sparcom {

static_assert(std::is_trivially_copyable_v<ActMulCount>, "it is passed to the kernel by value");

// In place of an Activation: that of the struct, at run time.
constexpr int any_activation = -1;
// The bin of a row that is not counted.
constexpr int32_t no_bin = -1;

// sums[i] += 1 if element i of x is counted.
template <bool one_range, class T, int n>
SPARCOM_DEVICE void count(const Ranges& counted, const Vec<T, n>& x, int32_t (&sums)[n]) {
  if (one_range || counted.n == 1) {
    // The range goes from a positive value to +inf: one comparison, false for NaN.
    Vec<T, 1> bits;
    bits.word[0] = counted.first[0];
    float first[1], value[n];
    bits.widen(first);
    x.widen(value);
    SPARCOM_UNROLL for (int i = 0; i < n; ++i)
      add_if_at_least(sums[i], value[i], first[0]);
    return;
  }
  constexpr uint32_t mask = sizeof(T) == 2 ? 0xffffu : 0xffffffffu;
  SPARCOM_UNROLL for (int range = 0; range < Ranges::max; ++range)
    SPARCOM_UNROLL for (int i = 0; i < n; ++i)
      sums[i] += ((x.bits(i) - counted.first[range]) & mask) < counted.size[range];
}

// With signs, a sum holds three counts of 10 bits: gate > 0, up > 0, both. So they need no more
// registers than one count, and a run ends after this many rows.
constexpr int32_t longest_signed_run = 1023;

// Adds element i's signs to sums[i]. `counted` starts at the smallest positive number.
template <class T, int n>
SPARCOM_DEVICE void count_signs(const Ranges& counted, const Vec<T, n>& gate, const Vec<T, n>& up,
                                int32_t (&sums)[n]) {
  Vec<T, 1> bits;
  bits.word[0] = counted.first[0];
  float first[1], g[n], u[n];
  bits.widen(first);
  gate.widen(g);
  up.widen(u);
  SPARCOM_UNROLL for (int i = 0; i < n; ++i)
    add_signs(sums[i], g[i], u[i], first[0]);
}

// The usual calls, gated or ungated, count by one range of the gate, ablate nothing, and have an
// activation without parameters and a gate apart from up. They do without the branches and
// registers that `any` other call needs. Calls with signs, usual and others, have kernels of their
// own, so that those without pay nothing for them.
enum class Call { gated, ungated, any, signs, any_signs };

template <Call C>
constexpr bool usual_call = C != Call::any && C != Call::any_signs;
template <Call C>
constexpr bool with_signs = C == Call::signs || C == Call::any_signs;

// What a thread keeps from row to row: where it is, and the run so far.
template <class T, int n>
struct Place {
  const int32_t* bins;
  const int32_t* expert;
  const T* gate;
  const T* up;
  T* out;
  int64_t col;
  int32_t bin, run, sums[n];
};

// counts[bin, col..] += sums, signs likewise, rows[bin] += run; then the next run starts.
template <bool signs, class T, int n>
SPARCOM_DEVICE void add_run(const ActMulCount& p, Place<T, n>& at) {
  if (at.bin >= 0) {
    const int64_t first = at.bin * p.width + at.col;
    if constexpr (signs) {
      int32_t* const to[3] = {p.counts + first, p.signs + first,
                              p.signs + p.n_bins * p.width + first};
      SPARCOM_UNROLL for (int k = 0; k < 3; ++k)
        SPARCOM_UNROLL for (int i = 0; i < n; ++i) {
          const int32_t sum = at.sums[i] >> 10 * k & 1023;
          if (sum) atomic_add(to[k] + i, sum);
        }
    } else {
      int32_t* const counts = p.counts + first;
      SPARCOM_UNROLL for (int i = 0; i < n; ++i)
        if (at.sums[i]) atomic_add(counts + i, at.sums[i]);
    }
    if (at.col == 0) atomic_add(p.rows + at.bin, at.run);
  }
  SPARCOM_UNROLL for (int i = 0; i < n; ++i) at.sums[i] = 0;
  at.run = 0;
}

// The next `at_once` rows; all of them are loaded before the first is used.
template <int at_once, int A, Call C, class T, int n>
SPARCOM_DEVICE void take_rows(const ActMulCount& p, Place<T, n>& at) {
  using V = Vec<T, n>;
  constexpr bool usual = usual_call<C>;
  const bool gated = C == Call::gated || with_signs<C> || (!usual && p.up);
  const bool ablates = !usual && (p.keep || p.fill);
  const int activation = A == any_activation ? int(p.activation) : A;

  V g[at_once], u[at_once];
  int32_t bins[at_once];
  SPARCOM_UNROLL for (int j = 0; j < at_once; ++j) {
    bins[j] = at.bins[j];
    if (!usual && gated && p.step == 2) {
      V::load_turns(at.gate + j * p.gate_stride, g[j], u[j]);
      continue;
    }
    g[j] = V::load_once(at.gate + j * p.gate_stride);
    if (gated) u[j] = V::load_once(at.up + j * p.up_stride);
  }
  SPARCOM_UNROLL for (int j = 0; j < at_once; ++j) {
    const int32_t expert = ablates && p.expert ? at.expert[j] : 0;
    const bool known = !ablates || (expert >= 0 && expert < p.n_experts);
    if (bins[j] < 0 || bins[j] >= p.n_bins || !known) bins[j] = no_bin;
    if (bins[j] != at.bin || (with_signs<C> && at.run == longest_signed_run))
      add_run<with_signs<C>>(p, at);
    at.bin = bins[j];
    ++at.run;

    if constexpr (with_signs<C>) count_signs(p.counted, g[j], u[j], at.sums);
    float x[n];
    g[j].widen(x);
    activate_all<T>(activation, x, p.parameters);
    V h = V::narrow(x);
    if (!usual && gated && activation >= int(Activation::swiglu)) {  // it shapes up
      u[j].widen(x);
      SPARCOM_UNROLL for (int i = 0; i < n; ++i)
        x[i] = shape_up_of(activation, x[i], p.parameters);
      u[j] = V::narrow(x);
    }
    if (gated) h = h * u[j];
    if constexpr (!with_signs<C>)
      count<usual>(p.counted, usual || p.signal == Signal::gate ? g[j] : h, at.sums);
    if (ablates && known) {
      const int64_t first = expert * p.width + at.col;
      if (p.keep) h = h * V::load(static_cast<const T*>(p.keep) + first);
      if (p.fill) h = h + V::load(static_cast<const T*>(p.fill) + first);
    }
    h.store(at.out + j * p.width);
  }
  at.bins += at_once;
  at.gate += at_once * p.gate_stride;
  if (gated) at.up += at_once * p.up_stride;
  if (ablates && p.expert) at.expert += at_once;
  at.out += at_once * p.width;
}

// A thread whose rows have no columns counts the rows.
SPARCOM_DEVICE void count_rows(const ActMulCount& p, int64_t begin, int32_t n_rows) {
  for (int64_t r = begin; r < begin + n_rows; ++r) {
    const int32_t bin = p.bins[r], expert = p.expert ? p.expert[r] : 0;
    const bool known = !p.expert || (expert >= 0 && expert < p.n_experts);
    if (bin >= 0 && bin < p.n_bins && known) atomic_add(p.rows + bin, 1);
  }
}

template <class T, int n, int A, Call C>
SPARCOM_DEVICE void act_mul_count_thread(const ActMulCount& p, const Launch& l, uint32_t thread) {
  constexpr int at_once = usual_call<C> ? 2 : 1;
  const uint32_t chunk = thread / l.threads_per_row;
  const int64_t col = int64_t(thread - chunk * l.threads_per_row) * n;
  const int64_t begin = int64_t(chunk) * l.rows_per_thread;
  if (begin >= p.n_rows) return;
  const int64_t left = p.n_rows - begin;
  const int32_t n_rows = left < l.rows_per_thread ? int32_t(left) : l.rows_per_thread;
  if (n == 1 && p.width == 0) return count_rows(p, begin, n_rows);

  const T* const up = static_cast<const T*>(p.up);
  Place<T, n> at{p.bins + begin,
                 p.expert ? p.expert + begin : nullptr,
                 static_cast<const T*>(p.gate) + begin * p.gate_stride + col * p.step,
                 up ? up + begin * p.up_stride + col * p.step : nullptr,
                 static_cast<T*>(p.out) + begin * p.width + col,
                 col,
                 no_bin,
                 0,
                 {}};
  int32_t row = 0;
  for (; row + at_once <= n_rows; row += at_once) take_rows<at_once, A, C>(p, at);
  for (; row < n_rows; ++row) take_rows<1, A, C>(p, at);
  add_run<with_signs<C>>(p, at);
}

// Calls run.template of<T, n, A, C>() for the kernel that a call needs: one for each dtype,
// activation and kind of call if memory is aligned, two for each dtype if it is not. Activations
// with parameters have only Call::any and Call::any_signs.
template <class T, int n, int A, class Run>
void with_kernel_of_activation(const ActMulCount& p, Run& run) {
  const bool any = p.keep || p.fill || p.signal == Signal::product || p.counted.n != 1;
  if (p.signs)
    return any ? run.template of<T, n, A, Call::any_signs>()
               : run.template of<T, n, A, Call::signs>();
  if (any) return run.template of<T, n, A, Call::any>();
  p.up ? run.template of<T, n, A, Call::gated>() : run.template of<T, n, A, Call::ungated>();
}

template <class T, int n, int A, class Run>
void with_kernel_of_any(const ActMulCount& p, Run& run) {
  p.signs ? run.template of<T, n, A, Call::any_signs>() : run.template of<T, n, A, Call::any>();
}

template <class T, class Run>
void with_kernel_of(const ActMulCount& p, const Launch& l, Run& run) {
  constexpr int n = 16 / sizeof(T);
  if (!l.vectors) return with_kernel_of_any<T, 1, any_activation>(p, run);
  switch (p.activation) {
    case Activation::silu: return with_kernel_of_activation<T, n, int(Activation::silu)>(p, run);
    case Activation::gelu: return with_kernel_of_activation<T, n, int(Activation::gelu)>(p, run);
    case Activation::gelu_tanh:
      return with_kernel_of_activation<T, n, int(Activation::gelu_tanh)>(p, run);
    case Activation::relu: return with_kernel_of_activation<T, n, int(Activation::relu)>(p, run);
    case Activation::relu2: return with_kernel_of_activation<T, n, int(Activation::relu2)>(p, run);
    case Activation::swiglu: return with_kernel_of_any<T, n, int(Activation::swiglu)>(p, run);
    case Activation::swiglu_step:
      return with_kernel_of_any<T, n, int(Activation::swiglu_step)>(p, run);
    case Activation::situ: return with_kernel_of_any<T, n, int(Activation::situ)>(p, run);
  }
}

template <class Run>
void with_kernel(const ActMulCount& p, const Launch& l, Run run) {
  switch (p.dtype) {
    case Dtype::fp32: return with_kernel_of<float>(p, l, run);
    case Dtype::bf16: return with_kernel_of<Bf16>(p, l, run);
    case Dtype::fp16: return with_kernel_of<Fp16>(p, l, run);
  }
}

}  // namespace sparcom
