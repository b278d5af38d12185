// The ops that work row by row, or head by head of a row, between the matrices: embeddings, norms, rotations, appending
// to the cache, routing. A worker takes some of the tokens, or some of the heads.
#pragma once

#include "backends/cpu/cpu_step_memory.h"
#include "backends/cpu/float_kernels.h"
#include "backends/cpu/fuse.h"
#include "base/worker_pool.h"

namespace nibble {

// Bytes that the largest choice of experts needs, for each worker: what it is worked out in, then room for its results.
size_t largest_route_bytes(const Step& step);

class RowOps {
 public:
  RowOps(const CpuStepMemory& memory, int num_workers);

  // A worker's share of the tokens, whoever runs it.
  void run(const RowOp& op, int share) const;
  bool is_empty(const RowOp& op, int share) const;

  // An op of what prepares the heads of an attention: all tokens, its key and value heads of a range and the query heads
  // that read them.
  void prepare_heads(const RowOp& op, const AttentionOp& attention, Range kv_heads) const;

  // The choice for a step's only token by each worker for itself: worker 0's goes where the op wants it, those of others into
  // memory of their own, until they choose again.
  void choose(const RouteOp& op, int worker) const;
  FloatRows chosen_experts(const RouteOp& op, int worker) const { return choice_of(op, worker).experts; }

  size_t scratch_bytes() const;

 private:
  struct Choice {
    FloatRows experts, weights;
  };
  Choice common_choice(const RouteOp& op) const;
  Choice choice_of(const RouteOp& op, int worker) const;
  void route(const RouteOp& op, Range tokens, const Choice& to, int worker) const;

  // Tokens of a range, and of each its heads of a range.
  void apply(const RmsNormOp& op, Range tokens, Range heads) const;
  void apply(const RopeOp& op, Range tokens, Range heads) const;
  // Heads of num_heads that keys and values have: a multiple of those that the cache keeps apart.
  void append(const KvAppendOp& op, Range tokens, Range heads, int64_t num_heads) const;

  Range tokens_of(const Slice& slice, int worker) const;
  void execute(const EmbedOp& op, int worker) const;
  void execute(const RmsNormOp& op, int worker) const;
  void execute(const RopeOp& op, int worker) const;
  void execute(const KvAppendOp& op, int worker) const;
  void execute(const SwigluOp& op, int worker) const;
  void execute(const RouteOp& op, int worker) const;
  void execute(const SelectLogitsOp& op, int worker) const;

  const CpuStepMemory& memory_;
  const int num_workers_;
  const FloatKernels& floats_ = float_kernels();
  std::vector<Buffer> route_scratch_;  // by worker
};

}  // namespace nibble
