// softmax(scale * q · k) · v over the cached positions of a token's sequence, for one head; with sinks, windows, and
// the latents of absorbed MLA, where a key is its own value.
//
// Work    positions are cut into parts that begin at multiples of kAttendPart. A threadgroup has one head of one token; its
//         simdgroups take turns with the positions of a part, and a lane has every 32nd value of the head. Each simdgroup
//         keeps its largest score, its total and its sums, which are put together at the end of the part, in their order;
//         parts are put together in theirs. Where a step has few heads, threadgroups share the parts (as in
//         flash-decoding: arXiv:2205.14135 and its authors' notes on decoding) and merge_attention puts them together: the
//         same numbers in the same order, so that a result depends neither on that nor on the other tokens of the step.
// Needs   heads of at most 32 * kValues values.
#include <metal_stdlib>

#include "backends/metal/arguments.h"

using namespace metal;
using namespace nibble;

constant bool has_sinks [[function_constant(kHasSinks)]];
constant bool is_latent [[function_constant(kIsLatent)]];

constant bool splits [[function_constant(kSplits)]];

// The positions that a token reads, and the parts that they are in.
struct Positions {
  uint first, end, first_part, end_part;
};
static inline Positions positions_of(constant AttentionArguments& a, uint pos) {
  Positions p;
  p.end = pos + 1;
  p.first = a.window > 0 && a.window < p.end ? p.end - a.window : 0;
  p.first_part = p.first / kAttendPart;
  p.end_part = pos / kAttendPart + 1;
  return p;
}

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

// A part's largest score, total and sums of a head of a token.
static inline device float* partial_of(device float* partials, constant AttentionArguments& a, uint m, uint head,
                                       uint part) {
  return partials + ((ulong(m) * a.num_heads + head) * a.most_parts + part) * (a.value_dim + 2);
}

template <typename T, int kValues, int kSimdgroups>
kernel void attention(
    constant AttentionArguments& a,
    device const float* q,       // [M, heads, key_dim]; of latents [M, heads, value_dim]
    device const float* q_rope,  // [M, heads, what is not read and the rotated part], of latents only
    device const T* k_cache,     // [sequences, num_rows, k_width]
    device const T* v_cache,     // [sequences, num_rows, v_width]
    device const float* sinks,   // [heads]
    device const int* pos,       // [M]
    device const int* sequence,  // [M]
    device float* out,           // [M, heads, value_dim]
    device float* partials,      // [M, heads, most_parts, 2 + value_dim], if threadgroups share the parts
    uint3 threadgroup_id [[threadgroup_position_in_grid]],
    uint thread_id [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  constexpr uint kThreadsHere = kSimdgroups * kLanes, kOwn = (kValues + kSimdgroups - 1) / kSimdgroups;
  threadgroup float largest_of[kSimdgroups];
  threadgroup float total_of[kSimdgroups];
  threadgroup float sums_of[kSimdgroups * kValues * kLanes];
  const uint head = threadgroup_id.x, m = threadgroup_id.y;
  const Positions p = positions_of(a, uint(pos[m]));
  const ulong sequence_row = ulong(sequence[m]) * a.num_rows;
  const uint kv_first = head / a.group_size * a.key_dim;

  float query[kValues];
  for (int i = 0; i < kValues; i++) {
    const uint at = i * kLanes + lane;
    query[i] = 0.0f;
    if (at >= a.key_dim) continue;
    if (!is_latent)
      query[i] = q[m * a.q_stride + head * a.key_dim + at];
    else if (at < a.value_dim)
      query[i] = q[m * a.q_stride + head * a.value_dim + at];
    else
      query[i] = q_rope[m * a.q_rope_stride + head * a.q_rope_head_stride + a.q_rope_first + at - a.value_dim];
  }

  Softmax softmax = {-INFINITY, 0.0f, 0.0f, 0.0f};
  float own[kOwn];  // sums of values thread_id, thread_id + kThreadsHere …
  for (uint i = 0; i < kOwn; i++) own[i] = 0.0f;
  for (uint part = p.first_part + threadgroup_id.z; part < p.end_part; part += a.num_splits) {
    const uint end = min((part + 1) * kAttendPart, p.end);
    float sums[kValues];
    for (int i = 0; i < kValues; i++) sums[i] = 0.0f;
    float largest = -INFINITY, total = 0.0f;
    for (uint t = max(part * kAttendPart, p.first) + simdgroup; t < end; t += kSimdgroups) {
      const ulong row = sequence_row + t % a.num_rows;  // a window's cache is a ring
      device const T* key = k_cache + row * a.k_width + (is_latent ? 0 : kv_first);
      device const T* value = is_latent ? key : v_cache + row * a.v_width + kv_first;
      float products = 0.0f;
      for (int i = 0; i < kValues; i++) {
        const uint at = i * kLanes + lane;
        if (at < a.key_dim) products = fma(query[i], float(key[at]), products);
      }
      const float score = a.scale * simd_sum(products);
      const float above = max(largest, score);
      const float shrink = exp(largest - above), weight = exp(score - above);
      total = total * shrink + weight;
      for (int i = 0; i < kValues; i++) {
        const uint at = i * kLanes + lane;
        if (at < a.value_dim) sums[i] = sums[i] * shrink + weight * float(value[at]);
      }
      largest = above;
    }

    if (lane == 0) {
      largest_of[simdgroup] = largest;
      total_of[simdgroup] = total;
    }
    for (int i = 0; i < kValues; i++) sums_of[(simdgroup * kValues + i) * kLanes + lane] = sums[i];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    largest = largest_of[0];
    for (int s = 1; s < kSimdgroups; s++) largest = max(largest, largest_of[s]);
    total = 0.0f;
    for (int s = 0; s < kSimdgroups; s++) total += total_of[s] * exp(largest_of[s] - largest);
    device float* partial = partial_of(partials, a, m, head, part - p.first_part);
    if (splits && thread_id == 0) {
      partial[0] = largest;
      partial[1] = total;
    }
    if (!splits) add_part(softmax, largest, total);
    for (uint i = 0; i < kOwn; i++) {
      const uint at = i * kThreadsHere + thread_id;
      if (at >= a.value_dim) continue;
      float sum = 0.0f;
      for (int s = 0; s < kSimdgroups; s++)
        sum += sums_of[s * kValues * kLanes + at] * exp(largest_of[s] - largest);
      if (splits)
        partial[2 + at] = sum;
      else
        own[i] = add_sums(softmax, own[i], sum);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);  // the next part's go to the same place
  }
  if (splits) return;
  for (uint i = 0; i < kOwn; i++) {
    const uint at = i * kThreadsHere + thread_id;
    if (at < a.value_dim) out[m * a.out_stride + head * a.value_dim + at] = share_of(softmax, own[i], sinks, head);
  }
}

// The parts of a head of a token; a thread has some of its values.
kernel void merge_attention(
    constant AttentionArguments& a,
    device float* partials,     // [M, heads, most_parts, 2 + value_dim]
    device const float* sinks,  // [heads]
    device const int* pos,      // [M]
    device float* out,          // [M, heads, value_dim]
    uint2 threadgroup_id [[threadgroup_position_in_grid]],
    uint thread_id [[thread_index_in_threadgroup]]) {
  const uint head = threadgroup_id.x, m = threadgroup_id.y;
  const Positions p = positions_of(a, uint(pos[m]));
  for (uint at = thread_id; at < a.value_dim; at += kThreads) {
    Softmax softmax = {-INFINITY, 0.0f, 0.0f, 0.0f};
    float sum = 0.0f;
    for (uint part = 0; part < p.end_part - p.first_part; part++) {
      device const float* partial = partial_of(partials, a, m, head, part);
      add_part(softmax, partial[0], partial[1]);
      sum = add_sums(softmax, sum, partial[2 + at]);
    }
    out[m * a.out_stride + head * a.value_dim + at] = share_of(softmax, sum, sinks, head);
  }
}

// 8 simdgroups of 1024 values would take all of a threadgroup's memory.
#define instantiate(name, T, kValues, kSimdgroups)                                      \
  template [[host_name(name)]] [[kernel]] decltype(attention<T, kValues, kSimdgroups>)  \
      attention<T, kValues, kSimdgroups>;
instantiate("attention_f16_128", half, 4, 8)
instantiate("attention_f16_256", half, 8, 8)
instantiate("attention_f16_640", half, 20, 4)
instantiate("attention_f16_1024", half, 32, 4)
instantiate("attention_f32_128", float, 4, 8)
instantiate("attention_f32_256", float, 8, 8)
instantiate("attention_f32_640", float, 20, 4)
instantiate("attention_f32_1024", float, 32, 4)
