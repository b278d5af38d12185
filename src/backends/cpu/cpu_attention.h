// One attention of a step on the CPU: cuts the cached positions into chunks, spreads them over the workers where heads
// and tokens are too few, and merges what the chunks give, always in the order of the positions.
#pragma once

#include "backends/cpu/cpu_kv_cache.h"
#include "backends/cpu/float_kernels.h"
#include "base/memory.h"
#include "base/worker_pool.h"
#include "ops/step.h"

namespace nibble {

struct AttentionShape {
  int64_t M;
  int64_t num_heads, num_kv_heads;
  int64_t head_dim, v_dim;  // columns of a key, and of a value
  int64_t window;           // 0: all positions
  int64_t max_len;

  int64_t heads_per_kv() const { return num_heads / num_kv_heads; }
  bool operator==(const AttentionShape&) const = default;
};

// Whether the workers share the positions of a token: where its key and value heads do not occupy them all.
bool splits_positions(const AttentionShape& shape, int num_workers);

AttentionShape attention_shape(const AttentionOp& op, int64_t M, int64_t max_len);
AttentionShape attention_shape(const LatentAttentionOp& op, int64_t M, int64_t max_len);

// Bytes that CpuAttention keeps.
int64_t attention_bytes(const AttentionShape& shape, int num_workers);

// What one token asks. A head's query is one piece of head_dim columns, or two (latent and rotated) that follow each other.
struct AttentionQuery {
  struct Piece {
    const float* data = nullptr;  // of head 0
    int64_t stride = 0, width = 0;
  };
  Piece q[2];
  int64_t pos;  // the token's own position, the last one that it sees
  int layer;
  int64_t sequence;
  bool values_are_keys = false;  // the first v_dim columns of them
  float scale;
  const float* sinks;  // [num_heads], or null
  float* out;          // [num_heads, v_dim]
};

class CpuAttention {
 public:
  CpuAttention(const AttentionShape& shape, int num_workers);

  const AttentionShape shape;
  const bool split;  // splits_positions

  // Not split: all positions for the query heads of key and value heads [first, last).
  void attend(const CpuKvCache& cache, const AttentionQuery& query, Range kv_heads, int worker) const;

  // Split: a token's chunks, or of each some of its heads, are so many pieces. Pieces that follow each other are neighbours in
  // the cache; `again`: this worker's call before was for another piece of the same token. What has one chunk is finished then.
  int64_t num_pieces(const AttentionQuery& query, KvCacheType type) const;
  void attend_piece(const CpuKvCache& cache, const AttentionQuery& query, int64_t m, int64_t piece, bool again,
                    int worker) const;
  bool is_merged(int64_t pos) const;
  // Where it is, after a barrier: what they gave is merged for a head, or for a part of its columns, in so many units of a token.
  int64_t num_merges() const;
  void merge(const AttentionQuery& query, int64_t m, int64_t unit) const;

  int64_t scratch_bytes() const;

 private:
  struct ChunkOfHead {
    int64_t chunk, kv_head;
    bool operator==(const ChunkOfHead&) const = default;
  };

  // How a token's chunks are cut.
  struct Pieces {
    Range chunks;
    int64_t heads;  // of a piece
    int64_t of_kv;  // pieces of a chunk of a key and value head
  };
  Pieces pieces(int64_t pos, KvCacheType type) const;
  Range chunks(int64_t pos) const;
  Range positions(int64_t chunk, int64_t pos) const;
  int64_t first_to_read(const CpuKvCache& cache, int64_t first_seen) const;
  float* own(int worker) const { return own_[static_cast<size_t>(worker)].as<float>(); }
  // `next` is what this worker attends to then: its keys are asked for in time. It is `at` where nothing new follows.
  // same_queries: as in this worker's call before.
  void attend_chunk(const CpuKvCache& cache, const AttentionQuery& query, ChunkOfHead at, ChunkOfHead next, Range heads,
                    bool same_queries, int worker, const Attended& to) const;
  Attended partial(int64_t m, int64_t slot, int64_t head) const;

  int num_workers_;
  int64_t num_slots_;       // chunks that a token sees at most
  int64_t kernel_scratch_;  // floats
  const FloatKernels& kernels_ = float_kernels();
  std::vector<Buffer> own_;  // by worker: scores, queries, and two lists of heads' largest, total and out
  Buffer partials_;          // split: [M, num_slots, num_heads, 2 + v_dim]
};

}  // namespace nibble
