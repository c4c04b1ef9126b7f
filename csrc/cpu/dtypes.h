// Tags of the element types, each the size of its element.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace sparcom {

struct Bf16 {
  uint16_t bits;
};
struct Fp16 {
  uint16_t bits;
};

}  // namespace sparcom
