// What a thread does for one value, or a simdgroup for one row: embedding, norms, rotation, the append to the cache,
// SwiGLU, copies. And the reading of memory that the roof is measured with.
#include <metal_stdlib>

#include "backends/metal/formats.h"

using namespace metal;
using namespace nibble;

constant bool is_interleaved [[function_constant(kIsInterleaved)]];

// A thread has one chunk of a token's row.
template <typename Format>
kernel void embed(
    constant EmbedArguments& a,
    device const uchar* w,       // [vocabulary, K]
    device const int* tokens,    // [M]
    device float* out,           // [M, K]
    uint2 place [[thread_position_in_grid]]) {
  const uint chunk = place.x, m = place.y;
  if (chunk >= a.w.num_chunks) return;
  const ulong row = ulong(tokens[m]);
  const Weights weights =
      Format::load(w + row * a.w.code_row_bytes, w + a.w.scales_at + row * a.w.scale_row_bytes, chunk);
  const float factor = reinterpret_cast<device const float*>(w + a.w.factors_at)[row];
  for (uint i = 0; i < kChunk && chunk * kChunk + i < a.K; i++)
    out[m * a.out_stride + chunk * kChunk + i] = weights.v[i / 4][i % 4] * weights.scale[i / 16] * factor;
}
#define instantiate_embed(name, Format) \
  template [[host_name(name)]] [[kernel]] decltype(embed<Format>) embed<Format>;
NIBBLE_EACH_FORMAT(instantiate_embed, "embed")

// A simdgroup has one head of one token. out may be x: a lane reads and writes the same values.
kernel void rms_norm(
    constant RmsNormArguments& a,
    device const float* x,       // [M, heads, width]
    device const float* weight,  // [width]
    device float* out,
    uint2 threadgroup_id [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]]) {
  device const float* from = x + threadgroup_id.y * a.x_stride + threadgroup_id.x * a.width;
  device float* to = out + threadgroup_id.y * a.out_stride + threadgroup_id.x * a.width;
  float squares = 0.0f;
  for (uint i = lane; i < a.width; i += kLanes) squares = fma(from[i], from[i], squares);
  const float factor = 1.0f / sqrt(simd_sum(squares) / float(a.width) + a.eps);
  for (uint i = lane; i < a.width; i += kLanes) to[i] = from[i] * factor * weight[i];
}

// A thread has one pair of one head of one token.
kernel void rope(
    constant RopeArguments& a,
    device float* x,            // [M, heads, head_dim]
    device const float* turns,  // [2, M, pairs]: cosines, sines
    uint3 place [[thread_position_in_grid]]) {
  const uint pair = place.x, head = place.y, m = place.z;
  if (pair >= a.num_pairs) return;
  device float* at = x + m * a.stride + head * a.head_dim + a.first;
  device float& first = at[is_interleaved ? 2 * pair : pair];
  device float& second = at[is_interleaved ? 2 * pair + 1 : pair + a.num_pairs];
  const float cosine = turns[m * a.num_pairs + pair], sine = turns[(a.M + m) * a.num_pairs + pair];
  const float f = first, s = second;
  first = f * cosine - s * sine;
  second = s * cosine + f * sine;
}

// A thread has one value of the key and one of the value of a token.
template <typename T>
kernel void kv_append(
    constant KvAppendArguments& a,
    device const float* k,      // [M, k_width]
    device const float* v,      // [M, v_width]
    device const int* pos,      // [M]
    device const int* sequence, // [M]
    device T* k_cache,          // [sequences, num_rows, k_width]
    device T* v_cache,          // [sequences, num_rows, v_width]
    uint2 place [[thread_position_in_grid]]) {
  const uint i = place.x, m = place.y;
  const ulong row = ulong(sequence[m]) * a.num_rows + ulong(uint(pos[m]) % a.num_rows);
  if (i < a.k_width) k_cache[row * a.k_width + i] = T(k[m * a.k_stride + i]);
  if (i < a.v_width) v_cache[row * a.v_width + i] = T(v[m * a.v_stride + i]);
}
template [[host_name("kv_append_f16")]] [[kernel]] decltype(kv_append<half>) kv_append<half>;
template [[host_name("kv_append_f32")]] [[kernel]] decltype(kv_append<float>) kv_append<float>;

kernel void swiglu(
    constant SwigluArguments& a,
    device const float* gate,
    device const float* up,
    device float* out,
    uint2 place [[thread_position_in_grid]]) {
  if (place.x >= a.width) return;
  const float g = gate[place.y * a.gate_stride + place.x];
  out[place.y * a.out_stride + place.x] = g / (1.0f + exp(-g)) * up[place.y * a.up_stride + place.x];
}

kernel void copy_rows(
    constant CopyRowsArguments& a,
    device const float* x,
    device float* out,
    uint2 place [[thread_position_in_grid]]) {
  if (place.x >= a.width) return;
  out[place.y * a.out_stride + place.x] = x[(a.first_row + place.y) * a.x_stride + place.x];
}

// Threads beside each other read 16 bytes beside each other.
kernel void read_memory(
    constant ReadMemoryArguments& a,
    device const uint4* words,
    device uint* out,  // [threads]
    uint i [[thread_position_in_grid]],
    uint num_threads [[threads_per_grid]]) {
  uint4 sum = uint4(0u);
  for (uint j = 0; j < a.words_per_thread; j++) sum += words[ulong(j) * num_threads + i];
  out[i] = sum.x + sum.y + sum.z + sum.w;
}
