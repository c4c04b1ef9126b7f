// The rows of routed experts, from the router's ids: by expert, and within one by token.
#pragma once

#include <cstdint>

namespace sparcom {

struct Route {
  const int64_t* ids;      // [tokens, top_k] experts of the whole layer
  const int64_t* place;    // [experts] where each lies among the held ones, or -1; null: as it is
  const int32_t* slots;    // [tokens] slot of each token, or -1
  int64_t tokens, top_k, experts, held;
  int64_t* token;  // [tokens * top_k] of each row; as many as there are rows are written
  int64_t* row;    // [tokens, top_k] the row of each id, or -1: held elsewhere
  int64_t* begin;  // [held + 1] first row of each held expert
  int32_t* bins;   // [tokens * top_k] slot * held + expert of each row, or -1
};

// False, and nothing of use written, where an id is no expert or a token names one twice.
bool route(const Route& p);

}  // namespace sparcom
