// Chooses a token's experts: scores, groups, the best top_k, their weights (RouteOp says what is meant).
//
// Work    one simdgroup a token. A score becomes an unsigned number with the same order, so that the next best is a
//         maximum over lanes, and of equals the lower expert; 0 is one that was taken; NaN is the smallest score.
#include <metal_stdlib>

#include "backends/metal/arguments.h"
#include "backends/metal/ordered_floats.h"

using namespace metal;
using namespace nibble;

constant bool is_sigmoid [[function_constant(kIsSigmoid)]];

static inline uint key_of(float x) { return ordered(isnan(x) ? -INFINITY : x); }

// Takes the best of `count` keys out: all lanes get its number.
static inline uint take_best(threadgroup uint* keys, uint count, uint lane) {
  uint best = 0, place = 0;
  for (uint i = lane; i < count; i += kLanes)
    if (keys[i] > best) {
      best = keys[i];
      place = i;
    }
  const uint most = simd_max(best);
  const uint chosen = simd_min(best == most ? place : count - 1);
  simdgroup_barrier(mem_flags::mem_threadgroup);
  if (lane == 0) keys[chosen] = 0;
  simdgroup_barrier(mem_flags::mem_threadgroup);
  return chosen;
}

kernel void route(
    constant RouteArguments& a,
    device const float* logits,     // [M, num_experts]
    device const float* bias,       // [num_experts]
    device float* experts,          // [M, top_k]
    device float* expert_weights,   // [M, top_k]
    uint m [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]]) {
  threadgroup float scores[kMostExperts];
  threadgroup float choice[kMostExperts];
  threadgroup uint keys[kMostExperts];
  threadgroup uint group_keys[kMostExperts];
  device const float* row = logits + m * a.logits_stride;

  float largest = -INFINITY;
  for (uint e = lane; e < a.num_experts; e += kLanes) largest = max(largest, row[e]);
  largest = simd_max(largest);
  float sum = 0.0f;
  for (uint e = lane; e < a.num_experts; e += kLanes) {
    scores[e] = is_sigmoid ? 1.0f / (1.0f + exp(-row[e])) : exp(row[e] - largest);
    sum += scores[e];
  }
  sum = simd_sum(sum);
  for (uint e = lane; e < a.num_experts; e += kLanes) {
    if (!is_sigmoid) scores[e] /= sum;
    choice[e] = a.has_bias ? scores[e] + bias[e] : scores[e];
    keys[e] = key_of(choice[e]);
  }
  simdgroup_barrier(mem_flags::mem_threadgroup);

  if (a.num_groups > 1) {
    const uint size = a.num_experts / a.num_groups;
    for (uint g = lane; g < a.num_groups; g += kLanes) {
      uint best = g * size, second = best;  // the same if there is but one
      for (uint e = best + 1; e < (g + 1) * size; e++) {
        if (keys[e] > keys[best]) {
          second = best;
          best = e;
        } else if (second == best || keys[e] > keys[second]) {
          second = e;
        }
      }
      group_keys[g] = key_of(second == best ? choice[best] : choice[best] + choice[second]);
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = 0; i < a.top_groups; i++) take_best(group_keys, a.num_groups, lane);
    for (uint e = lane; e < a.num_experts; e += kLanes)
      if (group_keys[e / size] != 0) keys[e] = key_of(-INFINITY);
    simdgroup_barrier(mem_flags::mem_threadgroup);
  }

  float total = 0.0f;
  for (uint i = 0; i < a.top_k; i++) {
    const uint e = take_best(keys, a.num_experts, lane);
    total += scores[e];
    if (lane == 0) experts[m * a.experts_stride + i] = float(e);
  }
  simdgroup_barrier(mem_flags::mem_device);
  const float factor = a.normalise ? a.scale / max(total, 1e-20f) : a.scale;
  for (uint i = lane; i < a.top_k; i += kLanes)
    expert_weights[m * a.weights_stride + i] = scores[uint(experts[m * a.experts_stride + i])] * factor;
}
