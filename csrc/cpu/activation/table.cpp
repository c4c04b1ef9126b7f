#include "table.h"

#include <cstring>
#include <memory>
#include <mutex>

#include "../../counted_ranges.h"

namespace sparcom {
namespace {

constexpr uint32_t n_values = 1u << 16;

std::unique_ptr<float[]> build(Activation activation, Dtype dtype) {
  std::unique_ptr<float[]> table(new float[n_values]);
  for (uint32_t x = 0; x < n_values; ++x) {
    const uint32_t f = bits_of_value(dtype, activate(activation, {}, value_of_bits(dtype, x)));
    // By bit patterns, since a conversion may flush a subnormal bf16 if this thread asks for it.
    const uint32_t bits = dtype == Dtype::bf16
                              ? f << 16
                              : bits_of_value(Dtype::fp32, value_of_bits(dtype, f));
    std::memcpy(&table[x], &bits, sizeof bits);
  }
  return table;
}

}  // namespace

const float* activation_table(Activation activation, Dtype dtype) {
  if (!has_table(activation)) return nullptr;
  constexpr int n_activations = int(Activation::gelu_tanh) + 1;
  static std::once_flag built[n_activations][2];
  static std::unique_ptr<float[]> tables[n_activations][2];
  const int a = int(activation), d = dtype == Dtype::fp16;
  std::call_once(built[a][d], [&] { tables[a][d] = build(activation, dtype); });
  return tables[a][d].get();
}

}  // namespace sparcom
