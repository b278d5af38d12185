// The float32 work between the matrices: norms, SwiGLU, attention. One table per instruction set, all compiled from the
// same text (float_kernels.inc) with other flags. The generic one has what every processor of its architecture has: on
// AArch64, NEON with multiply-adds and conversions of halves.
//
// What a row gives does not depend on the other rows of the call.
#pragma once

#include <cstdint>
#include <string_view>

#include "formats/q8_0.h"
#include "ops/backend.h"

namespace nibble {

struct CpuKernels;

// Positions that one call of attend_chunk takes at most. An attention is the merge, in their order, of what its chunks
// give, and a chunk begins at a multiple of this: so neither the step's tokens nor its workers change the sums. Latents
// of 576 halves fill 0.6 MB, and stay in a second-level cache between the two times that they are read.
inline constexpr int64_t kAttendChunk = 512;

// How the positions of one key or value head lie, in rows of a ring.
//   floats  of f32 and f16: a row of row_bytes each
// The others are of q8_0, in blocks of kKvBlock rows: their codes, row_bytes a row, then their scales, halves,
// [groups of a row, kKvBlock]. So all that a run of positions needs lies together, whatever the ring's length. The codes:
//   codes   [positions][columns]
// as integer products want them (FloatKernels::interleaves_q8_0):
//   keys    [positions by 16][columns by four][16 positions][4 columns]
//   values  [positions by four][columns][4 positions]
enum class KvLayout : uint8_t { floats, codes, keys, values };
inline constexpr int64_t kKvBlock = 64;

// `row_bytes`: of the codes.
constexpr int64_t kv_block_bytes(int64_t row_bytes) {
  return kKvBlock * row_bytes / Q8_0::group_size * (Q8_0::group_size + Q8_0::group_scale_bytes);
}

// A position's key or value of one head: floats, halves, or the codes of Q8_0 (formats/q8_0.h), whose last group is filled
// up and whose scales, one for each group, lie kKvBlock apart. The codes lie together, or (unit_bytes > 0) in units of so
// many bytes, unit_stride apart.
struct KvRow {
  uint8_t* values;
  uint16_t* scales = nullptr;  // of q8_0, halves
  int64_t unit_bytes = 0, unit_stride = 0;
};

// Row `i` of those that begin at `first`.
inline KvRow kv_row(KvLayout layout, uint8_t* first, int64_t row_bytes, int64_t i) {
  if (layout == KvLayout::floats) return {.values = first + i * row_bytes};
  uint8_t* block = first + i / kKvBlock * kv_block_bytes(row_bytes);
  const int64_t row = i % kKvBlock;
  auto* scales = reinterpret_cast<uint16_t*>(block + kKvBlock * row_bytes) + row;
  if (layout == KvLayout::keys)
    return {.values = block + row / 16 * 16 * row_bytes + row % 16 * 4,
            .scales = scales,
            .unit_bytes = 4,
            .unit_stride = 64};
  if (layout == KvLayout::values)
    return {.values = block + row / 4 * 4 * row_bytes + row % 4, .scales = scales, .unit_bytes = 1, .unit_stride = 4};
  return {.values = block + row * row_bytes, .scales = scales};
}

// Consecutive positions of one key or value head in a ring of num_rows rows, the first of them in row first_row: a multiple of
// kKvBlock if they are interleaved, as num_rows is then.
struct KvRun {
  const uint8_t* values;
  int64_t row_bytes, num_rows, first_row;
};

inline constexpr float kLog2e = 1.44269504f;  // e^x is 2^(kLog2e x)

// What some positions give one head, the largest score taken out: total = the sum of 2^(score - largest), out [v_dim] the
// same sum with each position's value.
struct Attended {
  float *largest, *total, *out;
};

// num_heads query heads against `len` positions of the key and value head that they share.
struct AttendTask {
  const float* q;  // [num_heads, head_dim], heads q_stride apart
  int64_t q_stride;
  int num_heads;
  int heads_of_key;  // query heads that share it, of which these are some
  KvRun k, v;
  KvCacheType type;
  int64_t len, head_dim, v_dim;
  int64_t skip;  // positions at the beginning that the heads do not see, less than len; 0 unless they are interleaved
  float scale_log2;   // a softmax of powers of two: its scale times kLog2e
  bool same_queries;  // as those of the call before with this scratch
  KvRun next_k;       // the keys of the call that follows, which are asked for in time
  int64_t next_len;   // 0: none
  float* scores;      // scratch of attend_scratch floats, on a line; it begins with [num_heads, kAttendChunk]
  float *largest, *total, *out;  // of each head, as in Attended: [num_heads], [num_heads], [num_heads, v_dim]
};

// Heads that one call should have where workers share those of a key: at least `few`, and up to `many` if there is enough
// for all workers.
struct HeadsOfCall {
  int few, many;
};

struct FloatKernels {
  std::string_view name;  // as CpuKernels::name

  // out = x / sqrt(mean(x²) + eps) * weight, each [size]; out may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t size, float* out);

  // out = silu(gate) * up, each [size].
  void (*swiglu)(const float* gate, const float* up, int64_t size, float* out);

  // out = gate * sigmoid(alpha * gate) * (up + 1), gate at most `limit` and up within ±limit.
  void (*clamped_swiglu)(const float* gate, const float* up, float alpha, float limit, int64_t size, float* out);

  // Turns pair i of a head, (head[i], head[i + half]), by the angle of cosine[i] and sine[i].
  void (*rotate)(float* head, const float* cosine, const float* sine, int64_t half);
  // The same of pairs (head[2i], head[2i + 1]).
  void (*rotate_interleaved)(float* head, const float* cosine, const float* sine, int64_t half);

  // Whether codes of q8_0 lie as KvLayout::keys and values, not as codes.
  bool interleaves_q8_0;
  // Puts float32 values into a cache.
  void (*store)(const float* values, int64_t size, KvCacheType type, const KvRow& to);

  // 1 … kAttendChunk positions.
  void (*attend_chunk)(const AttendTask& task);
  int64_t (*attend_scratch)(int64_t num_heads, int64_t head_dim);
  HeadsOfCall (*heads_of_call)(KvCacheType type);
  // `to` becomes what the positions of both give.
  void (*merge_attended)(Attended to, Attended from, int64_t v_dim);
  // out = softmax(scores) · values; a sink is one more logit of the softmax that has no value, or null.
  void (*finish_attended)(Attended attended, const float* sink, int64_t v_dim, float* out);
};

// The table that goes with those kernels; without an argument with cpu_kernels().
const FloatKernels& float_kernels_of(const CpuKernels& kernels);
const FloatKernels& float_kernels();

}  // namespace nibble
