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
// expert is out of range is not counted, so that `rows` shows it; without an expert its `out` is h.
//
// Threads. One thread owns 16 bytes of columns (8 of bf16 or fp16, 4 of fp32; one column if memory
// is not aligned) in `rows_per_thread` neighbouring rows. Neighbouring threads own neighbouring
// columns, so a warp reads 512 bytes of a row at once. A thread loads two rows before it uses the
// first. If the launch is `wide` (sm_100), a thread of a usual call owns 8 columns of fp32, 32 bytes,
// and loads one row before it uses it: the same bytes with fewer instructions. The rows of a run
// (neighbours with the same bin) add up in registers; at its end, every sum that is not zero is added
// to counts, where count_layout.h says. Threads share these atomic adds of integers and nothing else:
// no shared memory, shuffle or barrier. So no order of the threads can change a result, and a plain
// loop over them is a faithful emulation.
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
//
// Requests. A warp reads and writes 48 sectors of 32 bytes for each row, bf16 and gated, and adds
// its 256 counts in 32 sectors for each run if they are striped; in 256 if they are in order.
#pragma once

#include <type_traits>

#include "../act_mul_count.h"
#include "activations.h"
#include "count_layout.h"
#include "kernels.h"
#include "launch.h"
#include "vec.h"

namespace sparcom {

static_assert(std::is_trivially_copyable_v<ActMulCount>, "it is passed to the kernel by value");

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

// Where h goes: to `out`, as it is. quantise.h has another.
template <class T>
struct AsItIs {
  using Out = T;
  static constexpr bool quantised = false;
};

// What a thread keeps from row to row: where it is, and the run so far.
template <class T, int n, class Out>
struct Place {
  const int32_t* bins;
  const int32_t* expert;
  const T* gate;
  const T* up;
  Out* out;
  uint32_t col;
  Places counts;  // of its columns, in a row of counts
  int32_t bin, run, sums[n];
};

// counts[bin, col..] += sums, signs likewise, rows[bin] += run; then the next run starts.
template <Call C, class T, int n, class Out>
SPARCOM_DEVICE void add_run(const ActMulCount& p, const Launch& l, Place<T, n, Out>& at) {
  if (at.bin >= 0) {
    // The usual calls have registers to spare for the places; the others find them again.
    const Places to = C == Call::gated || C == Call::ungated
                          ? at.counts
                          : places_of(opaque(at.col), uint32_t(p.width), l.striped);
    SPARCOM_UNROLL for (int k = 0; k < (with_signs<C> ? 3 : 1); ++k) {
      const int64_t row = k == 2 ? p.n_bins + at.bin : at.bin;
      int32_t* const counts = (k ? p.signs : p.counts) + row * p.width + to.first;
      SPARCOM_UNROLL for (int i = 0; i < n; ++i) {
        const int32_t sum = with_signs<C> ? at.sums[i] >> 10 * k & 1023 : at.sums[i];
        if (sum) atomic_add(counts + i * to.stride, sum);
      }
    }
    if (to.first == 0) atomic_add(p.rows + at.bin, at.run);
  }
  SPARCOM_UNROLL for (int i = 0; i < n; ++i) at.sums[i] = 0;
  at.run = 0;
}

// On to the next rows.
template <int at_once, class To, class T, int n, class Out>
SPARCOM_DEVICE void pass(const ActMulCount& p, To& to, bool gated, bool with_expert,
                         Place<T, n, Out>& at) {
  at.bins += at_once;
  at.gate += at_once * p.gate_stride;
  if (gated) at.up += at_once * p.up_stride;
  if (with_expert && p.expert) at.expert += at_once;
  at.out += at_once * p.width;
  if constexpr (To::quantised) to.pass(at_once);
}

// The next `at_once` rows; all of them are loaded before the first is used.
template <int at_once, int A, Call C, class To, class T, int n, class Out>
SPARCOM_DEVICE void take_rows(const ActMulCount& p, const Launch& l, To& to,
                              Place<T, n, Out>& at) {
  using V = Vec<T, n>;
  constexpr bool usual = usual_call<C>;
  const bool gated = C == Call::gated || with_signs<C> || (!usual && p.up);
  const bool ablates = !usual && (p.keep || p.fill);
  const int activation = A == any_activation ? int(p.activation) : A;
  const bool grouped = To::quantised && p.expert;

  bool written[at_once] = {};
  if constexpr (To::quantised) {
    bool any = false;
    SPARCOM_UNROLL for (int j = 0; j < at_once; ++j)
      any |= written[j] = !grouped || at.expert[j] >= 0;
    if (!any) return pass<at_once>(p, to, gated, grouped, at);
  }

  V g[at_once], u[at_once], quantised[at_once];
  int32_t bins[at_once];
  SPARCOM_UNROLL for (int j = 0; j < at_once; ++j) {
    bins[j] = at.bins[j];
    if (!usual && gated && p.step == 2) {
      V::load_turns(at.gate + j * p.gate_stride, l.wide, g[j], u[j]);
      continue;
    }
    g[j] = V::load_once(at.gate + j * p.gate_stride);
    if (gated) u[j] = V::load_once(at.up + j * p.up_stride);
  }
  SPARCOM_UNROLL for (int j = 0; j < at_once; ++j) {
    const int32_t expert = ablates && p.expert ? at.expert[j] : 0;
    const bool known = !ablates || (expert >= 0 && expert < p.n_experts);
    if (bins[j] < 0 || bins[j] >= p.n_bins || !known) bins[j] = no_bin;
    if (To::quantised && !written[j]) bins[j] = no_bin;
    if (bins[j] != at.bin || (with_signs<C> && at.run == longest_signed_run))
      add_run<C>(p, l, at);
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
    const bool by_gate = usual || p.signal == Signal::gate;
    if constexpr (!with_signs<C> && To::quantised) {
      V value = h;  // by value: a choice between addresses would keep both in local memory
      if (by_gate) value = g[j];
      count<usual>(p.counted, value, at.sums);
    } else if constexpr (!with_signs<C>) {
      count<usual>(p.counted, by_gate ? g[j] : h, at.sums);
    }
    if (ablates && known) {
      const int64_t first = expert * p.width + at.col;
      if (p.keep) h = h * V::load(static_cast<const T*>(p.keep) + first);
      if (p.fill) h = h + V::load(static_cast<const T*>(p.fill) + first);
    }
    if constexpr (To::quantised) quantised[j] = h;
    else h.store(at.out + j * p.width);
  }
  if constexpr (To::quantised) to.store(p, quantised, written, at);
  pass<at_once>(p, to, gated, ablates || grouped, at);
}

// A thread whose rows have no columns counts the rows.
SPARCOM_DEVICE void count_rows(const ActMulCount& p, int64_t begin, int32_t n_rows) {
  for (int64_t r = begin; r < begin + n_rows; ++r) {
    const int32_t bin = p.bins[r], expert = p.expert ? p.expert[r] : 0;
    const bool known = !p.expert || (expert >= 0 && expert < p.n_experts);
    if (bin >= 0 && bin < p.n_bins && known) atomic_add(p.rows + bin, 1);
  }
}

// A thread that owns n columns. to: where h goes.
template <class T, int n, int A, Call C, class To>
SPARCOM_DEVICE void act_mul_count_columns(const ActMulCount& p, const Launch& l, uint32_t thread,
                                          To to) {
  using Out = typename To::Out;
  constexpr int at_once = usual_call<C> && n * sizeof(T) <= 16 ? 2 : 1;
  const uint32_t chunk = thread / l.threads_per_row;
  const uint32_t col = (thread - chunk * l.threads_per_row) * n;
  const int64_t begin = int64_t(chunk) * l.rows_per_thread;
  if (begin >= p.n_rows) return;
  if (To::quantised && col >= p.width) return;
  const int64_t left = p.n_rows - begin;
  int32_t rows = left < l.rows_per_thread ? int32_t(left) : l.rows_per_thread;
  if (n == 1 && p.width == 0) {
    wait_for_earlier_kernels();
    let_the_next_kernel_start();
    return count_rows(p, begin, rows);
  }

  const T* const up = static_cast<const T*>(p.up);
  Place<T, n, Out> at{p.bins + begin,
                      p.expert ? p.expert + begin : nullptr,
                      static_cast<const T*>(p.gate) + begin * p.gate_stride + col * p.step,
                      up ? up + begin * p.up_stride + col * p.step : nullptr,
                      static_cast<Out*>(p.out) + begin * p.width + col,
                      col,
                      places_of(col, uint32_t(p.width), l.striped),
                      no_bin,
                      0,
                      {}};
  if constexpr (To::quantised) to.begin(begin, col);
  wait_for_earlier_kernels();
  let_the_next_kernel_start();
  if constexpr (at_once > 1)
    for (; rows >= at_once; rows -= at_once) take_rows<at_once, A, C>(p, l, to, at);
  for (; rows > 0; --rows) take_rows<1, A, C>(p, l, to, at);
  add_run<C>(p, l, at);
}

template <class T, int n, int A, Call C, class To>
SPARCOM_DEVICE void act_mul_count_thread(const ActMulCount& p, const Launch& l, uint32_t thread,
                                         To to) {
  if constexpr (moves_32_bytes && usual_call<C> && sizeof(T) == 4 && n > 1)
    if (l.wide) return act_mul_count_columns<T, 2 * n, A, C>(p, l, thread, to);
  act_mul_count_columns<T, n, A, C>(p, l, thread, to);
}

}  // namespace sparcom
