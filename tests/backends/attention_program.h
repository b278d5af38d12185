// Steps that append to a cache and attend to it.
#pragma once

#include <vector>

#include "backends/step_comparison.h"

namespace nibble {

struct AttentionHeads {
  int64_t num_heads, num_kv_heads, head_dim, window;
};

// Tokens of one sequence in steps of M, from position 0 on.
inline Runs steps_of(int64_t M, int64_t num_positions) {
  Runs runs;
  for (int64_t pos = 0; pos + M <= num_positions; pos += M) {
    runs.emplace_back();
    for (int64_t m = 0; m < M; m++)
      runs.back().push_back({static_cast<int32_t>((pos + m) * 7 % 32), static_cast<int32_t>(pos + m), 0});
  }
  return runs;
}

inline StepProgram attention_program(const AttentionHeads& s, int64_t M, int64_t max_len, KvCacheType type,
                                     int64_t spare = 1024) {
  StepProgram p(M);
  const int64_t q_width = s.num_heads * s.head_dim, kv_width = s.num_kv_heads * s.head_dim;
  const Slice qkv = p.random_input("qkv", q_width + 2 * kv_width);
  p.cache_shape = {.layers = {{kv_width, kv_width, s.window, s.num_kv_heads}},
                   .num_sequences = 1,
                   .max_len = max_len,
                   .type = type,
                   .spare = spare};
  p.step.logits = p.step.buffer("attended", q_width);
  p.step.kv_append({.k = qkv.columns(q_width, kv_width), .v = qkv.columns(q_width + kv_width, kv_width), .layer = 0});
  p.step.attention({.q = qkv.columns(0, q_width),
                    .layer = 0,
                    .num_heads = s.num_heads,
                    .num_kv_heads = s.num_kv_heads,
                    .head_dim = s.head_dim,
                    .scale = 0.3f,
                    .out = p.step.logits,
                    .window = s.window,
                    .sinks = p.vector(s.num_heads)});
  return p;
}

// The last `count` of equal rows.
inline std::vector<float> last_rows(const std::vector<float>& values, int64_t width, int64_t count) {
  return {values.end() - static_cast<std::ptrdiff_t>(width * count), values.end()};
}

}  // namespace nibble
