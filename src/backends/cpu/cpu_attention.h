// One attention of a step on the CPU: cuts the cached positions into chunks, which workers take over from each other where tokens
// are few, and merges what the chunks give, always in the order of the positions.
#pragma once

#include <span>

#include "backends/cpu/cpu_kv_cache.h"
#include "backends/cpu/float_kernels.h"
#include "backends/cpu/packed_layout.h"
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

// Whether workers take chunks of any head. Of many tokens each has its own heads: the results of their chunks would fill memory.
bool shares_chunks(const AttentionShape& shape, int num_workers);

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

// What a worker takes: a chunk of the positions that token m sees, for some query heads of a key and value head.
struct AttentionPiece {
  int64_t m, kv_head, chunk;
  Range heads;
};

class CpuAttention {
 public:
  CpuAttention(const AttentionShape& shape, int num_workers);

  const AttentionShape shape;
  const bool shared;  // shares_chunks

  // Not shared: all positions for the query heads of key and value heads [first, last).
  void attend(const CpuKvCache& cache, const AttentionQuery& query, Range kv_heads, int worker) const;

  // Shared: the pieces of tokens at these positions. Each key and value head has the same number of them, which follow each
  // other, and those of a token are in the order of its chunks.
  int64_t num_pieces(std::span<const int32_t> pos, KvCacheType type) const;
  AttentionPiece piece(std::span<const int32_t> pos, KvCacheType type, int64_t i) const;
  // For each piece, and then leave() once. What a worker has in a row from a token's first chunk on is merged, and finished if
  // that is all. `next`: what it will have then, whose keys are asked for in time; the same piece if that is not known.
  void attend_piece(const CpuKvCache& cache, const AttentionQuery& query, const AttentionPiece& piece,
                    const AttentionPiece& next, int worker);
  void leave(int worker);
  // After a barrier, where anything is not finished: it is merged for a head, or for a part of its columns, in so many units of
  // a token.
  bool needs_merge(std::span<const int32_t> pos) const;
  int64_t num_merges() const;
  void merge(const AttentionQuery& query, int64_t m, int64_t unit) const;

  int64_t scratch_bytes() const;

 private:
  struct ChunkOfHead {
    int64_t chunk, kv_head;
    bool operator==(const ChunkOfHead&) const = default;
  };

  // How a token's chunks of a key and value head are cut.
  struct Pieces {
    Range chunks;
    int64_t heads;     // of a piece
    int64_t of_chunk;  // pieces

    int64_t count() const { return (chunks.last - chunks.first) * of_chunk; }
  };
  Pieces pieces(int64_t pos, KvCacheType type) const;
  // A worker's piece before, and how many chunks, up to that one, it has merged: 0 where it began after the first.
  struct alignas(kLineBytes) Run {
    int64_t m = -1;
    Range heads{};
    int64_t num_chunks = 0;
  };
  Range chunks(int64_t pos) const;
  Range positions(int64_t chunk, int64_t pos) const;
  int64_t first_to_read(const CpuKvCache& cache, int64_t first_seen) const;
  float* own(int worker) const { return own_[static_cast<size_t>(worker)].as<float>(); }
  // `next` is what this worker attends to then: its keys are asked for in time. It is `at` where nothing new follows.
  // same_queries: as in this worker's call before.
  void attend_chunk(const CpuKvCache& cache, const AttentionQuery& query, ChunkOfHead at, ChunkOfHead next, Range heads,
                    bool same_queries, int worker, const Attended& to) const;
  Attended partial(int64_t m, int64_t slot, int64_t head) const;
  // A worker's own, of its piece's h-th head: what it merges, and a chunk's.
  Attended merged(int worker, int64_t h) const { return of_list(worker, 0, h); }
  Attended single(int worker, int64_t h) const { return of_list(worker, 1, h); }
  Attended of_list(int worker, int list, int64_t h) const;
  void finish(const AttentionQuery& query, const Attended& attended, int64_t head) const;
  size_t index_of(int64_t m, int64_t head) const { return static_cast<size_t>(m * shape.num_heads + head); }

  int num_workers_;
  int64_t num_slots_;       // chunks that a token sees at most
  int64_t kernel_scratch_;  // floats
  const FloatKernels& kernels_ = float_kernels();
  std::vector<Buffer> own_;          // by worker: scores, queries, and two lists of heads' largest, total and out
  Buffer partials_;                  // shared: [M, num_slots, num_heads, 2 + v_dim]; slot 0 has what a worker merged
  std::vector<int32_t> num_merged_;  // shared, [M, num_heads]: chunks in slot 0, or finished if they are all
  std::vector<Run> runs_;            // shared, by worker
};

}  // namespace nibble
