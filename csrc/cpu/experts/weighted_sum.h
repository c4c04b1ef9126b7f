// The weighted sum of each token's rows, one of each of its experts.
//
//   out[t, i] = round(sum over k of weights[t, k] * y[row[t, k], i])       row[t, k] < 0: no row
//
// The sum is in fp32, in the order of k. With `round_products`, each product is rounded to the
// dtype of y first.
#pragma once

#include "../../act_mul_count.h"
#include "../../dtypes.h"

namespace sparcom {

struct WeightedSum {
  const void* y;         // [rows, width]
  const int64_t* row;    // [tokens, top_k], below rows
  const float* weights;  // [tokens, top_k]
  void* out;             // [tokens, width]
  int64_t tokens, top_k, rows, width;
  Dtype dtype;  // of y and out
  bool round_products;
};

// Runs on the threads of parallel.h. Throws std::invalid_argument if a row is not below `rows`.
void weighted_sum(const WeightedSum& p);

template <class V, class T>
void weighted_sum_tokens(const WeightedSum& p, int64_t begin, int64_t end) {
  constexpr int64_t n = 2 * V::lanes;
  const T tag{};
  const T* const y = static_cast<const T*>(p.y);
  const auto block = [&](int64_t t, int64_t column, int64_t size) {
    typename V::Pair sum{V::set(0), V::set(0)};
    for (int64_t k = 0; k < p.top_k; ++k) {
      const int64_t row = p.row[t * p.top_k + k];
      if (row < 0) continue;
      const T* const from = y + row * p.width + column;
      typename V::template Raw<T> raw;
      if (size == n) {
        raw = V::load(from);
      } else {
        T padded[n] = {};
        __builtin_memcpy(padded, from, size_t(size) * sizeof(T));
        raw = V::load(padded);
      }
      const auto w = V::set(p.weights[t * p.top_k + k]);
      auto x = V::widen(raw, tag);
      x = {V::mul(x.a, w), V::mul(x.b, w)};
      if (p.round_products) x = {V::round_to(x.a, tag), V::round_to(x.b, tag)};
      sum = {V::add(sum.a, x.a), V::add(sum.b, x.b)};
    }
    return V::narrow(sum, tag);
  };
  for (int64_t t = begin; t < end; ++t) {
    T* const out = static_cast<T*>(p.out) + t * p.width;
    int64_t i = 0;
    for (; i + n <= p.width; i += n) V::store(out + i, block(t, i, n));
    if (i == p.width) continue;
    T last[n];
    V::store(last, block(t, i, p.width - i));
    __builtin_memcpy(out + i, last, size_t(p.width - i) * sizeof(T));
  }
}

template <class V>
void weighted_sum_of(const WeightedSum& p, int64_t begin, int64_t end) {
  switch (p.dtype) {
    case Dtype::fp32: return weighted_sum_tokens<V, float>(p, begin, end);
    case Dtype::bf16: return weighted_sum_tokens<V, Bf16>(p, begin, end);
    case Dtype::fp16: return weighted_sum_tokens<V, Fp16>(p, begin, end);
  }
}

}  // namespace sparcom
