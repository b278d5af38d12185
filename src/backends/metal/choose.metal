// Takes the next token from each row of logits, as engine/sampler.h says: the best one, or one drawn from the best
// kCandidates. So the host need not know a token for the next step to begin with it. A grid's last dimension is the row.
//
// Exact   The best token, and which tokens are candidates in which order, are exact: logits are compared, and of equals
//         the lower token comes first; a NaN is never taken. Probabilities are float32 where the host's are double; where
//         the choice is so close to one of its bounds that this could matter, `chosen` is the complement of a token, and
//         the host has to choose.
// Cost    reads the logits once. Sorting 1024 in threadgroup memory takes 55 rounds of a barrier each.
#include <metal_stdlib>

#include "backends/metal/arguments.h"
#include "backends/metal/ordered_floats.h"

using namespace metal;
using namespace nibble;

constexpr constant uint kSimdgroups = kChooseThreads / kLanes;
// Of the whole probability: far more than the errors of 128 exponentials and their sum, about 1e-6.
constexpr constant float kDoubt = 3e-5f;

static inline uint key_of(float logit) { return isnan(logit) ? 0u : ordered(logit); }

static inline bool is_better(uint key, uint token, uint other_key, uint other_token) {
  return key > other_key || (key == other_key && token < other_token);
}

// ---- the best token ----

// The best of the threads' pairs; every thread gets it.
static inline uint2 best_of_threads(uint2 mine, threadgroup uint* keys, threadgroup uint* tokens, uint simdgroup,
                                    uint lane) {
  const uint key = simd_max(mine.x), token = simd_min(mine.x == key ? mine.y : ~0u);
  if (lane == 0) {
    keys[simdgroup] = key;
    tokens[simdgroup] = token;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  uint2 best = uint2(0u, ~0u);
  for (uint s = 0; s < kSimdgroups; s++)
    if (is_better(keys[s], tokens[s], best.x, best.y)) best = uint2(keys[s], tokens[s]);
  return best;
}

kernel void best_of_slices(
    constant ChooseArguments& a,
    device const float* logits,  // [rows, N]
    device uint2* best,          // [rows, num_slices]: key and token
    uint2 threadgroup_id [[threadgroup_position_in_grid]],
    uint thread_id [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  threadgroup uint keys[kSimdgroups];
  threadgroup uint tokens[kSimdgroups];
  uint2 mine = uint2(0u, ~0u);
  const uint slice = threadgroup_id.x, row = threadgroup_id.y, end = min((slice + 1) * kSlice, a.N);
  for (uint i = slice * kSlice + thread_id; i < end; i += kChooseThreads) {
    const uint key = key_of(logits[row * a.logits_stride + i]);
    if (key > mine.x) mine = uint2(key, i);
  }
  const uint2 all = best_of_threads(mine, keys, tokens, simdgroup, lane);
  if (thread_id == 0) best[row * a.num_slices + slice] = all;
}

kernel void take_best(
    constant ChooseArguments& a,
    device const uint2* best,         // [rows, num_slices]
    device int* tokens_of_next_step,  // [rows]
    device int* chosen,               // [rows]
    uint row [[threadgroup_position_in_grid]],
    uint thread_id [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  threadgroup uint keys[kSimdgroups];
  threadgroup uint tokens[kSimdgroups];
  uint2 mine = uint2(0u, ~0u);
  best += row * a.num_slices;
  for (uint i = thread_id; i < a.num_slices; i += kChooseThreads)
    if (is_better(best[i].x, best[i].y, mine.x, mine.y)) mine = best[i];
  const uint2 all = best_of_threads(mine, keys, tokens, simdgroup, lane);
  if (thread_id != 0) return;
  const int taken = all.x == 0 ? 0 : int(all.y);
  tokens_of_next_step[row] = taken;
  chosen[row] = all.x == 0 ? ~taken : taken;  // all are NaN
}

// ---- one of the best ----

// Sorts kSlice pairs, the best first (Batcher's bitonic network, doi:10.1145/1468075.1468121).
static inline void sort_best_first(threadgroup uint* keys, threadgroup uint* tokens, uint thread_id) {
  for (uint size = 2; size <= kSlice; size *= 2) {
    for (uint stride = size / 2; stride > 0; stride /= 2) {
      threadgroup_barrier(mem_flags::mem_threadgroup);
      for (uint pair = thread_id; pair < kSlice / 2; pair += kChooseThreads) {
        const uint i = pair / stride * 2 * stride + pair % stride, j = i + stride;
        if (is_better(keys[j], tokens[j], keys[i], tokens[i]) != ((i & size) == 0)) continue;
        const uint key = keys[i], token = tokens[i];
        keys[i] = keys[j];
        tokens[i] = tokens[j];
        keys[j] = key;
        tokens[j] = token;
      }
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
}

static inline float sum_of_threads(float mine, threadgroup float* sums, uint num_simdgroups, uint simdgroup,
                                   uint lane) {
  const float sum = simd_sum(mine);
  if (lane == 0) sums[simdgroup] = sum;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float all = 0.0f;
  for (uint s = 0; s < num_simdgroups; s++) all += sums[s];
  return all;
}

kernel void slice_candidates(
    constant ChooseArguments& a,
    device const float* logits,  // [rows, N]
    device uint2* candidates,    // [rows, num_slices, kCandidates]: key and token, the best first
    device float2* masses,       // [rows, num_slices]: the best logit, the sum of exp((logit - best) / temperature)
    uint2 threadgroup_id [[threadgroup_position_in_grid]],
    uint thread_id [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  threadgroup uint keys[kSlice];
  threadgroup uint tokens[kSlice];
  threadgroup float sums[kSimdgroups];
  const uint slice = threadgroup_id.x, row = threadgroup_id.y;
  for (uint i = thread_id; i < kSlice; i += kChooseThreads) {
    const uint token = slice * kSlice + i;
    keys[i] = token < a.N ? key_of(logits[row * a.logits_stride + token]) : 0u;
    tokens[i] = token;
  }
  sort_best_first(keys, tokens, thread_id);
  const float best = keys[0] == 0 ? -INFINITY : from_ordered(keys[0]);
  float mass = 0.0f;
  if (isfinite(best))
    for (uint i = thread_id; i < kSlice; i += kChooseThreads)
      if (keys[i] != 0) mass += exp((from_ordered(keys[i]) - best) / a.temperature);
  mass = sum_of_threads(mass, sums, kSimdgroups, simdgroup, lane);
  const uint list = row * a.num_slices + slice;
  for (uint i = thread_id; i < kCandidates; i += kChooseThreads)
    candidates[list * kCandidates + i] = uint2(keys[i], tokens[i]);
  if (thread_id == 0) masses[list] = float2(best, mass);
}

// A threadgroup takes the best of as many lists as it can sort.
kernel void merge_candidates(
    constant MergeArguments& a,
    device const uint2* lists,  // [rows, row_lists, kCandidates], of which num_lists are in use
    device uint2* out,          // the same, of which an eighth will be
    uint2 threadgroup_id [[threadgroup_position_in_grid]],
    uint thread_id [[thread_index_in_threadgroup]]) {
  threadgroup uint keys[kSlice];
  threadgroup uint tokens[kSlice];
  const uint first = threadgroup_id.y * a.row_lists * kCandidates;  // of the row
  for (uint i = thread_id; i < kSlice; i += kChooseThreads) {
    const uint at = threadgroup_id.x * kSlice + i;
    const uint2 pair = at < a.num_lists * kCandidates ? lists[first + at] : uint2(0u, ~0u);
    keys[i] = pair.x;
    tokens[i] = pair.y;
  }
  sort_best_first(keys, tokens, thread_id);
  for (uint i = thread_id; i < kCandidates; i += kChooseThreads)
    out[first + threadgroup_id.x * kCandidates + i] = uint2(keys[i], tokens[i]);
}

// kCandidates threads.
kernel void draw_token(
    constant ChooseArguments& a,
    device const uint2* candidates,   // [rows, num_slices, kCandidates]: a row's first list
    device const float2* masses,      // [rows, num_slices]
    device const float* draws,        // [rows], in [0, 1)
    device int* tokens_of_next_step,  // [rows]
    device int* chosen,               // [rows]
    uint row [[threadgroup_position_in_grid]],
    uint thread_id [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  threadgroup float weights[kCandidates];
  threadgroup uint is_there[kCandidates];
  threadgroup float sums[kCandidates / kLanes];
  candidates += row * a.num_slices * kCandidates;
  masses += row * a.num_slices;
  const float best = from_ordered(candidates[0].x);
  const bool is_sane = candidates[0].x != 0 && isfinite(best);
  const uint key = candidates[thread_id].x;
  is_there[thread_id] = key != 0 && (a.top_k == 0 || thread_id < a.top_k);
  weights[thread_id] = is_there[thread_id] && is_sane ? exp((from_ordered(key) - best) / a.temperature) : 0.0f;
  float mass = 0.0f;  // of all tokens
  if (a.top_k == 0 && is_sane)
    for (uint s = thread_id; s < a.num_slices; s += kCandidates)
      if (masses[s].y > 0.0f) mass += masses[s].y * exp((masses[s].x - best) / a.temperature);
  mass = sum_of_threads(mass, sums, kCandidates / kLanes, simdgroup, lane);
  if (thread_id != 0) return;

  float total = mass;
  if (a.top_k > 0) {
    total = 0.0f;
    for (uint i = 0; i < kCandidates; i++) total += weights[i];
  }
  bool is_sure = is_sane;
  float kept = 0.0f;
  uint num_kept = 0;
  for (; num_kept < kCandidates && is_there[num_kept]; num_kept++) {
    if (num_kept > 0 && a.top_p < 1.0f) {
      const float missing = a.top_p * total - kept;
      if (fabs(missing) < kDoubt * total) is_sure = false;
      if (missing <= 0.0f) break;
    }
    if (num_kept > 0 && a.min_p > 0.0f) {
      if (fabs(weights[num_kept] - a.min_p) < kDoubt * a.min_p) is_sure = false;
      if (weights[num_kept] < a.min_p) break;
    }
    kept += weights[num_kept];
  }
  // All candidates are kept, and there are tokens beyond: their share is known only if all of them are kept, too.
  const bool goes_on = num_kept == kCandidates && a.top_k == 0 && a.N > kCandidates;
  if (goes_on) {
    if (a.top_p < 1.0f || a.min_p > 0.0f) is_sure = false;
    kept = total;
  }

  const float at = draws[row] * kept;
  float above = 0.0f;  // the sum up to the one that is taken, without it
  uint taken = 0;
  for (; taken < num_kept; taken++) {
    if (at < above + weights[taken] || (taken + 1 == num_kept && !goes_on)) break;
    above += weights[taken];
  }
  if (taken == num_kept) {
    is_sure = false;
    taken = 0;
  } else {
    const bool is_last = taken + 1 == num_kept && !goes_on;
    if (taken > 0 && at - above < kDoubt * total) is_sure = false;
    if (!is_last && above + weights[taken] - at < kDoubt * total) is_sure = false;
  }
  const int next = is_sane ? int(candidates[taken].y) : 0;
  tokens_of_next_step[row] = next;
  chosen[row] = is_sure ? next : ~next;
}
