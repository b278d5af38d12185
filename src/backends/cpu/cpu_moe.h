// Mixtures of experts on the CPU. A step of M tokens makes M * top_k pairs of a token and an expert; they are sorted by
// expert, so that a chosen expert's rows are read and decoded once for all its tokens, and of the others nothing.
//
// Cost    a decode step reads top_k of E experts; a worker has the same rows of each. The rounded activations of a pair are
//         made once (for M = 1 by every worker for itself, which is cheaper than a barrier).
// Sums    in the order of a token's choices, so that its result does not depend on what the other tokens chose.
#pragma once

#include <vector>

#include "backends/cpu/ask_ahead.h"
#include "backends/cpu/float_kernels.h"
#include "backends/cpu/float_rows.h"
#include "backends/cpu/linears.h"
#include "backends/cpu/row_shares.h"
#include "base/memory.h"
#include "base/worker_pool.h"
#include "ops/backend.h"

namespace nibble {

// Chooses the experts of one token: see RouteOp. `scratch` has route_scratch_bytes.
void route_token(const RouteOp& op, const float* logits, const float* correction_bias, float* experts,
                 float* expert_weights, double* scratch);
size_t route_scratch_bytes(const RouteOp& op);

struct MoeShape {
  int64_t M, top_k, E, N, K;
  int num_outputs;  // rows of N for each pair: gate and up, or down
  bool alone;       // every worker rounds all activations for itself
  bool operator==(const MoeShape&) const = default;
};

// `w`: the shape of the gate matrix, or of the down matrix.
MoeShape moe_shape(const MoeGateUpOp& op, int64_t M, const WeightShape& w);
MoeShape moe_shape(const MoeDownOp& op, int64_t M, const WeightShape& w);

// Bytes that MoeScratch keeps for floats.
int64_t moe_bytes(const MoeShape& shape, int num_workers);

// The pairs of a step, m * top_k + j for the j-th expert of token m, by expert; those of an expert in their order.
struct PairOrder {
  std::vector<int32_t> pairs;   // [M * top_k], sorted
  std::vector<int32_t> places;  // [M * top_k]: where a pair is in `pairs`
  std::vector<int32_t> first;   // [E + 1]: where an expert's pairs begin
};

struct MoeScratch {
  MoeScratch(const MoeShape& s, const Linears& l, int num_workers);
  size_t bytes() const;

  // Sorts the pairs by the experts of each token, for one worker.
  void sort(const FloatRows& experts, int worker);
  int64_t num_chosen(int worker) const;  // experts with pairs, once it has sorted

  const MoeShape shape;
  const Linears& linears;
  std::vector<PairOrder> orders;     // by worker: each sorts for itself
  Buffer gathered;                   // [M * top_k, K]; not if alone
  std::vector<Activations> rounded;  // by worker if alone, else one: of all pairs, sorted (if alone: not sorted)
  std::vector<Buffer> outputs;       // [M * top_k, N], sorted

 private:
  std::vector<Buffer> groups_;
};

// The packed weights of all experts, and their biases, [E, N] or null.
struct ExpertLinear {
  const PackedMatrix* w;
  const float* bias;
};

// Rows of some experts, whole blocks of the scratch's N.
struct ExpertPiece {
  Range rows, experts;
};

// Of few tokens some rows of all experts; of many, whose activations should not be read again and again, all of a worker's
// rows of some experts.
PiecesOf<ExpertPiece> expert_pieces(const MoeShape& shape, const RowPieces& rows);
bool pieces_have_all_experts(const MoeShape& shape);

// The rows of the matrix that such a piece begins with; unknown if pieces have only some of the experts. Only when the
// step's experts are chosen.
RowsToCome first_rows(const PackedMatrix& w, const MoeShape& shape, const FloatRows& experts, const ExpertPiece& piece);

// Each in two parts, with a barrier between them unless scratch->shape.alone.
struct MoeGateUp {
  void prepare(int worker, int num_workers, AskAhead& ahead) const;
  void compute(int worker, const ExpertPiece& piece, RowsToCome next) const;
  const PackedMatrix& first_matrix() const { return *gate.w; }

  MoeGateUpOp op;
  ExpertLinear gate, up;
  FloatRows x;
  std::vector<FloatRows> experts;  // by worker
  FloatRows out;
  MoeScratch* scratch;
};

struct MoeDown {
  void prepare(int worker, int num_workers, AskAhead& ahead) const;
  // With the sum, unless pieces have only some of the experts: then `sum` comes after a barrier.
  void compute(int worker, const ExpertPiece& piece, RowsToCome next) const;
  const PackedMatrix& first_matrix() const { return *down.w; }
  void sum(int worker, Range rows) const;

  ExpertLinear down;
  FloatRows x, experts, expert_weights, out;
  MoeScratch* scratch;
};

}  // namespace nibble
