// act_mul_count on CPU, for one instruction set V. ../../act_mul_count.h has the formula.
//
// A tile is some rows x some columns; each thread computes one tile at a time. In a tile the rows
// go in order, and each row is read once from left to right, block by block, so that memory
// streams. The rows of a run (neighbours with the same bin) add up in byte counters, one per
// column; a run is cut every 255 rows. At the end of a run the counters are added to counts[bin].
// With `signs` there are two more counters per column: up > 0, and both. A tile has at most
// `max_columns` columns, so that rows of a usual width are read whole: where a row is cut, memory
// stops streaming. That costs more than counters that leave the first-level cache.
//
// Threads split the rows and, if there are few rows, the columns too. Two threads may then add to
// the same bin: a lock makes them take turns. Counts are integers, so no order changes a result.
//
// Memory is the limit, if the processor looks far enough ahead. While it computes f it does not:
// its queues hold about the operations of a block and a half of 32 elements, so that a block takes
// longer, the more operations it has and the longer their chain is. Hence few steps and a division
// (activations.h, avx512.h), and prefetches. An output larger than the caches is stored past them
// (`Tile::stream`).
//
// On AVX-512, bf16 silu takes 31 cycles for 32 elements (Zen 4), of which 13 are not f's. On 2
// cores of an EPYC, 4096 x 11008 took 10.0 ms with f in 37 cycles and rows cut at 8,192 columns,
// 8.8 ms with f in 31, 7.2 ms with rows whole too, 6.8 ms with prefetches 2,048 bytes ahead that go
// on in the next row, not 512. Without f (relu) it takes 5.4 ms, a copy of as many bytes 5.8 ms.
// (Processor time of a thread. Where the buffers lie moves all of these by up to a third.)
//
// If gathers are fast, f of a 16-bit dtype is looked up (table.h: 23 cycles in all). Gathers leave
// the processor even less room to look ahead. On 2 cores of a Xeon, 4096 x 11008 took 14.5 ms with
// neither prefetching nor streaming stores, 12.8 ms with prefetching, 10.5 ms with both; a copy of
// as many bytes took 10.3 ms. (On a machine whose shared cache of 480 MB could keep such an output,
// the product that reads it next became slower by as much as this kernel became faster.)
#pragma once

#include "../../act_mul_count.h"
#include "../dispatch.h"
#include "../parallel.h"
#include "activations.h"
#include "table.h"

namespace sparcom {

constexpr int64_t max_columns = 32768, max_apart = 8192;
constexpr int64_t max_run = 255;
constexpr int64_t ahead = 2048, burst = 128;  // of prefetches, in bytes

// What decides: one range of the gate's bits (the usual case), this and the same range of up's
// (`signs`), or any ranges of either signal.
enum class Count { gate, signs, any };
template <Count C>
constexpr int counters_of = C == Count::signs ? 3 : 1;
constexpr int64_t counters_apart = max_columns + 64;  // a row of counters is aligned to 64 bytes

template <class T>
struct Row {
  const T *gate, *up;
  T* out;
  uint8_t* counters;
  int64_t width;
  const float* table;
  bool stream;
  int64_t gate_gap, up_gap;  // elements from the end of this row to the next one
};

// Prefetches what the loop reads `ahead` bytes after element i, of the next row too. Beyond the
// last row it does nothing: a prefetch of memory that does not exist is ignored.
template <class T>
SPARCOM_INLINE void prefetch(const T* row, int64_t i, int64_t width, int64_t gap) {
  const int64_t at = i * int64_t(sizeof(T)) + ahead, end = width * int64_t(sizeof(T));
  const char* const p =
      reinterpret_cast<const char*>(row) + at + (at < end ? 0 : gap * int64_t(sizeof(T)));
  for (int64_t k = 0; k < burst; k += 64) __builtin_prefetch(p + k);
}

// True if V looks f of T up in a table.
template <class V, class T, class = void>
constexpr bool looks_up = false;
template <class V, class T>
constexpr bool looks_up<V, T, std::void_t<decltype(V::lookup(nullptr, typename V::Raw16{}, T{}))>> =
    true;

// round(f) of one block, as floats; not yet rounded if only `narrow` follows, which rounds.
template <class V, class T, Activation A, bool gated>
SPARCOM_INLINE typename V::Pair activated(typename V::template Raw<T> gate, const float* table,
                                          const Parameters& c) {
  const T tag{};
  if constexpr (looks_up<V, T> && has_table(A)) {
    return V::lookup(table, gate, tag);
  } else {
    const auto y = activate<V, A>(V::widen(gate, tag), c, tag);
    if constexpr (!gated || A == Activation::relu) return y;
    else if constexpr (A == Activation::relu2 || shapes_up(A))
      return {V::round_to(y.a, tag), V::round_to(y.b, tag)};
    else return {V::near_to(y.a, tag), V::near_to(y.b, tag)};
  }
}

// h of one block, and the mask of its counted elements; with signs, of up > 0 and of both too.
template <class V, class T, Activation A, bool gated, Count C>
SPARCOM_INLINE typename V::template Raw<T> block(const T* gate, const T* up, const float* table,
                                                 const Parameters& parameters,
                                                 const Ranges& counted, Signal signal,
                                                 typename V::Mask (&masks)[counters_of<C>]) {
  const T tag{};
  const auto g = V::load(gate);
  auto y = activated<V, T, A, gated>(g, table, parameters);
  if constexpr (gated) {
    const auto raw = V::load(up);
    if constexpr (C == Count::signs)
      masks[1] = V::in_range(raw, counted.first[0], counted.size[0]);
    auto u = V::widen(raw, tag);
    if constexpr (shapes_up(A))
      u = {V::round_to(shape_up<V, A>(u.a, parameters), tag),
           V::round_to(shape_up<V, A>(u.b, parameters), tag)};
    y = {V::mul(y.a, u.a), V::mul(y.b, u.b)};
  }
  const auto h = V::narrow(y, tag);
  if constexpr (C == Count::any) {
    const auto x = signal == Signal::gate ? g : h;
    masks[0] = V::in_range(x, counted.first[0], counted.size[0]);
    for (int i = 1; i < counted.n; ++i)
      masks[0] = V::either(masks[0], V::in_range(x, counted.first[i], counted.size[i]));
  } else {
    masks[0] = V::in_range(g, counted.first[0], counted.size[0]);
  }
  if constexpr (C == Count::signs) masks[2] = V::both(masks[0], masks[1]);
  return h;
}

template <class V, int n>
SPARCOM_INLINE void tally(uint8_t* counters, const typename V::Mask (&masks)[n]) {
  for (int k = 0; k < n; ++k) V::tally(counters + k * counters_apart, masks[k]);
}

template <class V, class T, Activation A, bool gated, Count C>
SPARCOM_INLINE void row(const ActMulCount& p, const Row<T> r) {
  constexpr int64_t n = 2 * V::lanes;
  const Ranges counted = p.counted;
  const Parameters parameters = p.parameters;
  const Signal signal = p.signal;
  typename V::Mask masks[counters_of<C>] = {};
  int64_t i = 0;
  for (; i + n <= r.width; i += n) {
    if (i % (burst / int64_t(sizeof(T))) == 0) {
      prefetch(r.gate, i, r.width, r.gate_gap);
      if (gated) prefetch(r.up, i, r.width, r.up_gap);
    }
    const auto h = block<V, T, A, gated, C>(r.gate + i, r.up + i, r.table, parameters, counted,
                                            signal, masks);
    if (r.stream) V::stream(r.out + i, h);
    else V::store(r.out + i, h);
    tally<V>(r.counters + i, masks);
  }
  if (i == r.width) return;
  // The last, short block goes through padded copies.
  const size_t bytes = size_t(r.width - i) * sizeof(T);
  T gate[n] = {}, up[n] = {}, out[n];
  __builtin_memcpy(gate, r.gate + i, bytes);
  if (gated) __builtin_memcpy(up, r.up + i, bytes);
  V::store(out, block<V, T, A, gated, C>(gate, up, r.table, parameters, counted, signal, masks));
  __builtin_memcpy(r.out + i, out, bytes);
  tally<V>(r.counters + i, masks);
}

inline void add_counters(int32_t* counts, const uint8_t* counters, int64_t n) {
  for (int64_t i = 0; i < n; ++i) counts[i] += counters[i];
}

// counts += counters of a run, and signs. If tiles may have rows of the same bin, they take turns:
// for a microsecond, once per run.
template <Count C>
void add_run(const ActMulCount& p, const Tile& t, int32_t bin, const uint8_t* counters) {
  const int64_t first = bin * p.width + t.col_begin, n = t.col_end - t.col_begin;
  uint8_t* const lock = t.locks ? t.locks + bin % n_locks : nullptr;
  while (lock && __atomic_test_and_set(lock, __ATOMIC_ACQUIRE)) pause_thread();
  add_counters(p.counts + first, counters, n);
  if constexpr (C == Count::signs)
    for (int k = 0; k < 2; ++k)
      add_counters(p.signs + k * p.n_bins * p.width + first, counters + (k + 1) * counters_apart, n);
  if (lock) __atomic_clear(lock, __ATOMIC_RELEASE);
}

// out = out * keep + fill of one row, each result rounded. It is a second pass, as ablation is
// rare.
template <class V, class T>
void ablate(T* out, const T* keep, const T* fill, int64_t width) {
  constexpr int64_t n = 2 * V::lanes;
  const T tag{};
  const auto one = [&](typename V::template Raw<T> h, const T* k, const T* f) {
    if (k) {
      const auto x = V::widen(h, tag), y = V::widen(V::load(k), tag);
      h = V::narrow({V::mul(x.a, y.a), V::mul(x.b, y.b)}, tag);
    }
    if (f) {
      const auto x = V::widen(h, tag), y = V::widen(V::load(f), tag);
      h = V::narrow({V::add(x.a, y.a), V::add(x.b, y.b)}, tag);
    }
    return h;
  };
  int64_t i = 0;
  for (; i + n <= width; i += n)
    V::store(out + i, one(V::load(out + i), keep ? keep + i : nullptr, fill ? fill + i : nullptr));
  if (i == width) return;
  const size_t bytes = size_t(width - i) * sizeof(T);
  T h[n] = {}, k[n] = {}, f[n] = {};
  __builtin_memcpy(h, out + i, bytes);
  if (keep) __builtin_memcpy(k, keep + i, bytes);
  if (fill) __builtin_memcpy(f, fill + i, bytes);
  V::store(h, one(V::load(h), keep ? k : nullptr, fill ? f : nullptr));
  __builtin_memcpy(out + i, h, bytes);
}

// Takes a row apart in which gate and up take turns.
template <class T>
void take_apart(const T* both, T* gate, T* up, int64_t width) {
  for (int64_t i = 0; i < width; ++i) {
    gate[i] = both[2 * i];
    up[i] = both[2 * i + 1];
  }
}

// One tile of at most max_columns columns; max_apart if gate and up take turns.
template <class V, class T, Activation A, bool gated, Count counting>
void narrow_tile(const ActMulCount& p, const Tile& t) {
  alignas(64) uint8_t counters[counters_of<counting> * counters_apart];
  alignas(64) T apart[2][max_apart];  // touched only if gate and up take turns
  const auto at = [&](const void* base, int64_t r, int64_t stride, int64_t step = 1) {
    return base ? static_cast<const T*>(base) + r * stride + t.col_begin * step : nullptr;
  };
  const int64_t width = t.col_end - t.col_begin;
  for (int64_t begin = t.row_begin, end; begin < t.row_end; begin = end) {
    const int32_t bin = p.bins[begin];
    for (end = begin + 1; end < t.row_end && end - begin < max_run && p.bins[end] == bin;) ++end;
    for (int k = 0; k < counters_of<counting>; ++k)
      __builtin_memset(counters + k * counters_apart, 0, size_t(width + 2 * V::lanes - 1));
    for (int64_t r = begin; r < end; ++r) {
      T* const out = const_cast<T*>(at(p.out, r, p.width));
      const bool stream = t.stream && reinterpret_cast<uintptr_t>(out) % 64 == 0;
      Row<T> one{at(p.gate, r, p.gate_stride, p.step), at(p.up, r, p.up_stride, p.step),
                 out, counters, width, t.table, stream,
                 p.gate_stride - width, p.up_stride - width};
      if (p.step == 2) {
        take_apart(one.gate, apart[0], apart[1], width);
        one.gate = apart[0];
        one.up = apart[1];
      }
      row<V, T, A, gated, counting>(p, one);
      const int64_t e = p.expert ? p.expert[r] : 0;
      if (p.keep || p.fill)
        ablate<V, T>(out, at(p.keep, e, p.width), at(p.fill, e, p.width), width);
    }
    if (bin < 0) continue;  // not counted
    add_run<counting>(p, t, bin, counters);
    if (t.count_rows) __atomic_fetch_add(p.rows + bin, int32_t(end - begin), __ATOMIC_RELAXED);
  }
}

template <class V, class T, Activation A, bool gated>
void tile(const ActMulCount& p, const Tile& t) {
  const int64_t most = p.step == 2 ? max_apart : max_columns;
  Tile part = t;
  do {
    part.col_end = t.col_end - part.col_begin < most ? t.col_end : part.col_begin + most;
    part.count_rows = t.count_rows && part.col_begin == 0;
    if (p.signal == Signal::product || p.counted.n != 1)
      narrow_tile<V, T, A, gated, Count::any>(p, part);
    else if (gated && p.signs)
      narrow_tile<V, T, A, gated, gated ? Count::signs : Count::gate>(p, part);
    else
      narrow_tile<V, T, A, gated, Count::gate>(p, part);
    part.col_begin = part.col_end;
  } while (part.col_begin < t.col_end);
  if (t.stream) V::fence();
}

template <class V, class T, Activation A>
void tile_of_gating(const ActMulCount& p, const Tile& t) {
  p.up ? tile<V, T, A, true>(p, t) : tile<V, T, A, false>(p, t);
}

template <class V, class T>
void tile_of_activation(const ActMulCount& p, const Tile& t) {
  switch (p.activation) {
    case Activation::silu: return tile_of_gating<V, T, Activation::silu>(p, t);
    case Activation::gelu: return tile_of_gating<V, T, Activation::gelu>(p, t);
    case Activation::gelu_tanh: return tile_of_gating<V, T, Activation::gelu_tanh>(p, t);
    case Activation::relu: return tile_of_gating<V, T, Activation::relu>(p, t);
    case Activation::relu2: return tile_of_gating<V, T, Activation::relu2>(p, t);
    case Activation::swiglu: return tile_of_gating<V, T, Activation::swiglu>(p, t);
    case Activation::swiglu_step: return tile_of_gating<V, T, Activation::swiglu_step>(p, t);
    case Activation::situ: return tile_of_gating<V, T, Activation::situ>(p, t);
  }
}

template <class V>
void act_mul_count_tile(const ActMulCount& p, const Tile& t) {
  switch (p.dtype) {
    case Dtype::fp32: return tile_of_activation<V, float>(p, t);
    case Dtype::bf16: return tile_of_activation<V, Bf16>(p, t);
    case Dtype::fp16: return tile_of_activation<V, Fp16>(p, t);
  }
}

}  // namespace sparcom
