// The rows of routed experts, from the router's ids: ordered by expert, and by token within one.
#pragma once

#include <cstdint>

namespace sparcom {

struct Route {
  const int64_t* ids;    // [tokens, top_k] experts of the whole layer
  const int64_t* local;  // [experts] index of each among this worker's, or -1; null: all, in order
  const int32_t* slots;  // [tokens] slot of each token, or -1
  int64_t tokens, top_k, experts, local_experts;
  int64_t* token;  // [tokens * top_k] of each row; as many as there are rows are written
  int64_t* row;    // [tokens, top_k] the row of each id, or -1 if another worker has the expert
  int64_t* begin;  // [local_experts + 1] first row of each local expert
  int32_t* bins;   // [tokens * top_k] slot * local_experts + local expert of each row, or -1
};

// Returns false, with what it wrote of no use, if an id is no expert or a token names one twice.
bool route(const Route& p);

}  // namespace sparcom
