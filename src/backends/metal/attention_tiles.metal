// What attention.metal does for the heads of many tokens, on simdgroup matrices; not for latents.
//
// Cost    reads a key and a value once for kTileQueries queries of its sequence.
// Work    a threadgroup has kTileQueries heads of tokens that read the same keys, 8 of them in each simdgroup, and takes the
//         positions in tiles of kTileKeys, which begin at multiples of it. Scores are products of matrices, in steps of
//         kChunk values of a head; so are the sums over values, in steps of as many: a lane adds up one value of each chunk,
//         for its simdgroup's 8 queries. Queries of other sequences have their turn after that.
// Sums    float32. A query's do not depend on the others: where a tile has no position of it, nothing is added. They are not
//         those of attention.metal to the last bit.
// Needs   heads of at most 32 * kValues values.
#include <metal_simdgroup_matrix>
#include <metal_stdlib>

#include "backends/metal/softmax.h"

using namespace metal;
using namespace nibble;

constexpr constant uint kTileQueries = kQueryTile, kTileKeys = 64, kRowsOfSimdgroup = 8;
constexpr constant uint kThreadsHere = kTileQueries / kRowsOfSimdgroup * kLanes;
// Rows of threadgroup memory, 4 more: they begin in different banks.
constexpr constant uint kQueryStride = kChunk + 4, kValueStride = kChunk + 4, kKeyStride = kTileKeys + 4;
constexpr constant uint kQueryFloats = kTileQueries * kQueryStride, kScoreFloats = kTileQueries * kKeyStride;
constexpr constant uint kKeyFloats = kTileKeys * kValueStride;  // which is more than kChunk * kKeyStride

template <typename T, int kValues>
kernel void attention_tiles(
    constant AttentionArguments& a,
    device const float* q,       // [M, heads, key_dim]
    device const float* q_rope,  // of latents
    device const T* k_cache,     // [sequences, num_rows, k_width]
    device const T* v_cache,     // [sequences, num_rows, v_width]
    device const float* sinks,   // [heads]
    device const int* pos,       // [M]
    device const int* sequence,  // [M]
    device float* out,           // [M, heads, value_dim]
    uint2 threadgroup_id [[threadgroup_position_in_grid]],
    uint thread_id [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
  threadgroup float queries[kQueryFloats];  // [queries, chunk]; later the sums of a chunk of values
  threadgroup float keys[kKeyFloats];       // [chunk, keys]; later a chunk of the values [keys, chunk]
  threadgroup float scores[kScoreFloats];   // [queries, keys]; later their weights
  const uint kv_head = threadgroup_id.x, first_query = threadgroup_id.y * kTileQueries;
  const uint num_queries = min(uint(kTileQueries), a.M * a.group_size - first_query);
  const uint own_query = simdgroup * kRowsOfSimdgroup;
  threadgroup float* own_scores = scores + own_query * kKeyStride;
  threadgroup float* own_sums = queries + own_query * kQueryStride;
  // Four threads load a chunk of a query.
  const uint loaded = thread_id / 4, first_value = thread_id % 4 * 8;
  const Query load = query_of(a, kv_head, first_query + min(loaded, num_queries - 1));
  device const float* load_from = q + load.m * a.q_stride + load.head * a.key_dim;

  float own[kRowsOfSimdgroup][kValues];  // sums of value chunk * kChunk + lane
  float largest[kRowsOfSimdgroup], total[kRowsOfSimdgroup];
  for (uint r = 0; r < kRowsOfSimdgroup; r++) {
    largest[r] = -INFINITY;
    total[r] = 0.0f;
    for (int c = 0; c < kValues; c++) own[r][c] = 0.0f;
  }

  for (uint begin = 0; begin < num_queries;) {
    // A run of queries of one sequence, and the positions that any of them reads.
    const uint whose = uint(sequence[query_of(a, kv_head, first_query + begin).m]);
    uint run_end = begin, all_first = ~0u, all_end = 0;
    for (; run_end < num_queries; run_end++) {
      const uint m = query_of(a, kv_head, first_query + run_end).m;
      if (uint(sequence[m]) != whose) break;
      const Positions p = positions_of(a, uint(pos[m]));
      all_first = min(all_first, p.first);
      all_end = max(all_end, p.end);
    }
    for (uint tile = all_first / kTileKeys * kTileKeys; tile < all_end; tile += kTileKeys) {
      simdgroup_float8x8 products[kTileKeys / 8];
      for (uint j = 0; j < kTileKeys / 8; j++) products[j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
      for (uint chunk = 0; chunk < a.key_dim; chunk += kChunk) {
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint k = first_value; k < first_value + 8; k++)
          queries[loaded * kQueryStride + k] = chunk + k < a.key_dim ? load_from[chunk + k] : 0.0f;
        for (uint i = thread_id; i < kTileKeys * kChunk; i += kThreadsHere) {
          const uint t = tile + i / kChunk, at = chunk + i % kChunk;
          const ulong row = ulong(whose) * a.num_rows + t % a.num_rows;  // a window's cache is a ring
          const bool is_there = t >= all_first && t < all_end && at < a.key_dim;
          keys[i % kChunk * kKeyStride + i / kChunk] =
              is_there ? float(k_cache[row * a.k_width + kv_head * a.key_dim + at]) : 0.0f;
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint k = 0; k < kChunk; k += 8) {
          simdgroup_float8x8 left, right;
          simdgroup_load(left, queries + own_query * kQueryStride + k, kQueryStride);
          for (uint j = 0; j < kTileKeys / 8; j++) {
            simdgroup_load(right, keys + k * kKeyStride + j * 8, kKeyStride);
            simdgroup_multiply_accumulate(products[j], left, right, products[j]);
          }
        }
      }
      for (uint j = 0; j < kTileKeys / 8; j++) simdgroup_store(products[j], own_scores + j * 8, kKeyStride);
      simdgroup_barrier(mem_flags::mem_threadgroup);

      // Weights of the tile's positions, and what the sums so far have to be multiplied by.
      float shrink[kRowsOfSimdgroup];
      bool reads[kRowsOfSimdgroup];
      for (uint r = 0; r < kRowsOfSimdgroup; r++) {
        const uint n = own_query + r;
        Positions p = {0, 0};
        if (n >= begin && n < run_end) p = positions_of(a, uint(pos[query_of(a, kv_head, first_query + n).m]));
        reads[r] = p.first < tile + kTileKeys && p.end > tile;
        shrink[r] = 1.0f;
        float score[kTileKeys / kLanes];
        float above = largest[r];
        for (uint i = 0; i < kTileKeys / kLanes; i++) {
          const uint at = i * kLanes + lane, t = tile + at;
          score[i] = t >= p.first && t < p.end ? a.scale * own_scores[r * kKeyStride + at] : -INFINITY;
          above = max(above, score[i]);
        }
        above = simd_max(above);
        float sum = 0.0f;
        for (uint i = 0; i < kTileKeys / kLanes; i++) {
          const float weight = reads[r] ? exp(score[i] - above) : 0.0f;
          own_scores[r * kKeyStride + i * kLanes + lane] = weight;
          sum += weight;
        }
        sum = simd_sum(sum);
        if (!reads[r]) continue;
        shrink[r] = exp(largest[r] - above);
        total[r] = fma(total[r], shrink[r], sum);
        largest[r] = above;
      }
      simdgroup_barrier(mem_flags::mem_threadgroup);

      for (int c = 0; c < kValues; c++) {
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint i = thread_id; i < kTileKeys * kChunk; i += kThreadsHere) {
          const uint t = tile + i / kChunk, at = c * kChunk + i % kChunk;
          const ulong row = ulong(whose) * a.num_rows + t % a.num_rows;
          const bool is_there = t >= all_first && t < all_end && at < a.value_dim;
          keys[i / kChunk * kValueStride + i % kChunk] =
              is_there ? float(v_cache[row * a.v_width + kv_head * a.value_dim + at]) : 0.0f;
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        simdgroup_float8x8 sums[kChunk / 8];
        for (uint j = 0; j < kChunk / 8; j++) sums[j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
        for (uint k = 0; k < kTileKeys; k += 8) {
          simdgroup_float8x8 left, right;
          simdgroup_load(left, own_scores + k, kKeyStride);
          for (uint j = 0; j < kChunk / 8; j++) {
            simdgroup_load(right, keys + k * kValueStride + j * 8, kValueStride);
            simdgroup_multiply_accumulate(sums[j], left, right, sums[j]);
          }
        }
        for (uint j = 0; j < kChunk / 8; j++) simdgroup_store(sums[j], own_sums + j * 8, kQueryStride);
        simdgroup_barrier(mem_flags::mem_threadgroup);
        for (uint r = 0; r < kRowsOfSimdgroup; r++)
          if (reads[r]) own[r][c] = fma(own[r][c], shrink[r], own_sums[r * kQueryStride + lane]);
        simdgroup_barrier(mem_flags::mem_threadgroup);
      }
    }
    begin = run_end;
  }

  for (uint r = 0; r < kRowsOfSimdgroup && own_query + r < num_queries; r++) {
    const Query query = query_of(a, kv_head, first_query + own_query + r);
    const Softmax softmax = {largest[r], total[r], 0.0f, 0.0f};
    for (int c = 0; c < kValues; c++) {
      const uint at = c * kChunk + lane;
      if (at < a.value_dim)
        out[query.m * a.out_stride + query.head * a.value_dim + at] = share_of(softmax, own[r][c], sinks, query.head);
    }
  }
}

#define instantiate(name, T, kValues) \
  template [[host_name(name)]] [[kernel]] decltype(attention_tiles<T, kValues>) attention_tiles<T, kValues>;
instantiate("attention_tiles_f16_128", half, 4)
instantiate("attention_tiles_f16_256", half, 8)
instantiate("attention_tiles_f32_128", float, 4)
instantiate("attention_tiles_f32_256", float, 8)
