// For shaders: which positions and keys the heads of tokens read, and the softmax over them, whose parts come one after the other.
#pragma once

#include <metal_stdlib>

#include "backends/metal/arguments.h"

namespace nibble {

using namespace metal;

constant bool has_sinks [[function_constant(kHasSinks)]];

// The positions that a token reads, and the parts that they are in.
struct Positions {
  uint first, end;
};
static inline Positions positions_of(constant AttentionArguments& a, uint pos) {
  Positions p;
  p.end = pos + 1;
  p.first = a.window > 0 && a.window < p.end ? p.end - a.window : 0;
  return p;
}
static inline uint first_part(thread const Positions& p) { return p.first / kAttendPart; }
static inline uint end_part(thread const Positions& p) { return (p.end + kAttendPart - 1) / kAttendPart; }

// Of the parts so far: the largest score, and the sum of exp(score - largest). `shrink` and `grow` are what sums over values
// have to be multiplied by before those of the next part are added, and those.
struct Softmax {
  float largest, total, shrink, grow;
};
static inline void add_part(thread Softmax& s, float largest, float total) {
  const float above = max(s.largest, largest);
  s.shrink = exp(s.largest - above);
  s.grow = exp(largest - above);
  s.total = fma(s.total, s.shrink, total * s.grow);
  s.largest = above;
}
static inline float add_sums(thread const Softmax& s, float sum, float of_part) {
  return fma(sum, s.shrink, of_part * s.grow);
}
// The sum over values divided by the total, of which a sink takes its share.
static inline float share_of(thread const Softmax& s, float sum, device const float* sinks, uint head) {
  if (!has_sinks) return sum / s.total;
  const float above = max(s.largest, sinks[head]), shrink = exp(s.largest - above);
  return sum * shrink / fma(s.total, shrink, exp(sinks[head] - above));
}

// A head of a token.
struct Query {
  uint m, head;
};
// Query number `i` of those that read the keys of head `kv_head`.
static inline Query query_of(constant AttentionArguments& a, uint kv_head, uint i) {
  Query q;
  q.m = i / a.group_size;
  q.head = kv_head * a.group_size + i % a.group_size;
  return q;
}

}  // namespace nibble
