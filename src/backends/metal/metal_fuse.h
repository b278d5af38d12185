// Which ops of a step become one dispatch: a pure function of the step and of the formats of its matrices, the one place that
// knows the patterns. What matches none is a dispatch of its own.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "ops/step.h"

namespace nibble::metal_fusion {

// Matrices of one format that multiply the same rows, perhaps after a norm.
struct Linears {
  std::optional<RmsNormOp> norm;
  bool stores_norm = false;       // somebody else reads its result
  std::vector<LinearOp> linears;  // 1 … kMostParts
};

// SwiGLU of two matrices of one format, perhaps after a norm; nobody reads the two products.
struct DenseGateUp {
  std::optional<RmsNormOp> norm;
  LinearOp gate, up;
  SwigluOp swiglu;
};

// What is done with the heads of a token before attention. A latent with its rotated part (LatentAttentionOp) is one head of
// keys, of which the first columns are normed, and without values.
struct Heads {
  Slice q;
  int64_t num_heads, num_kv_heads;
  std::optional<RmsNormOp> q_norm, k_norm;  // of k_norm->x.width / num_kv_heads columns of a head, the first
  std::optional<RopeOp> rope;               // of queries; that of keys differs only in where it begins in a head
  int64_t k_rope_first = 0;
  KvAppendOp append;
};

// Gate and up in different formats: `part` 1 leaves the gate in the place of the result, 2 multiplies it by up.
struct ExpertGateUp {
  MoeGateUpOp op;
  int part = 0;  // 0: both at once
};

// The most tokens that go through a matrix four by four (rows.h) rather than in tiles of 64 (tiles.h). By reason, not by
// measurement: a tile computes 64 tokens whatever their number is, and beyond this more than half of it is for something.
inline constexpr int64_t kMostBlockTokens = 32;
inline bool takes_tiles(int64_t M) { return M > kMostBlockTokens; }

// The same for the pairs of a token and an expert, for each expert there is: from a quarter of a tile on, if all are chosen
// equally often. A block of 512 tokens takes tiles with 8 of 256 experts and with 4 of 128.
inline constexpr int64_t kExpertTilePairs = 16;
inline bool takes_expert_tiles(int64_t num_pairs, int64_t num_experts) {
  return num_pairs >= kExpertTilePairs * num_experts;
}

using Dispatch =
    std::variant<Linears, DenseGateUp, Heads, ExpertGateUp, EmbedOp, RmsNormOp, RopeOp, KvAppendOp, AttentionOp,
                 HeadLinearOp, LatentAttentionOp, SwigluOp, RouteOp, MoeDownOp, SelectLogitsOp>;

// `packed_format` is that of a matrix as packed.
std::vector<Dispatch> fuse(const Step& step, const std::function<FormatId(WeightId)>& packed_format);

// The matrices that it reads.
std::vector<WeightId> matrices_of(const Dispatch& dispatch);

// "rms_norm + 3 linears".
std::string dispatch_name(const Dispatch& dispatch);

}  // namespace nibble::metal_fusion
