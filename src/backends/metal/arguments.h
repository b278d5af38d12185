// What the host tells a kernel: read by the C++ compiler and by Metal's alike, so that both mean the same bytes.
//
// A kernel's parameters are, in this order: its arguments (one struct of this file), its buffers in the order of
// metal_kernels.h, its place in the grid. Strides are in values, sizes and places in bytes say so.
#pragma once

#ifndef __METAL_VERSION__
#include <cstdint>
#endif

namespace nibble {

#ifdef __METAL_VERSION__
using ByteCount = ulong;
#else
using ByteCount = uint64_t;
#endif

// ---- how work is cut ----

enum : uint32_t {
  kLanes = 32,         // of a simdgroup
  kChunk = 32,         // weights of a row that a lane takes at a time
  kRows = 4,           // of a matrix, that a simdgroup multiplies side by side
  kRowSimdgroups = 2,  // of a threadgroup that multiplies rows
  kThreads = 64,       // of a threadgroup where every thread has one value
  kMostParts = 3,      // matrices of one dispatch
  kTokenBlock = 4,     // tokens that one decoding of a matrix serves, where there are several
  kTile = 64,          // tokens, and rows of a matrix, that a threadgroup multiplies where there are many tokens
  kTileThreads = 128,
  kSortThreads = 256,  // of the threadgroup that sorts pairs of a token and an expert
  kMostExperts = 1024,
  kQueryTile = 32,       // heads of tokens that a threadgroup attends for, where there are many tokens
  kAttendPart = 256,     // positions that attention takes in one go
  kMostAhead = 8,        // steps of a command buffer
  kMostAheadRows = 32,   // sequences that are decoded together so
  kSlice = 1024,         // logits of which a threadgroup takes the best
  kCandidates = 128,     // tokens among which one is drawn
  kChooseThreads = 256,  // of a threadgroup that looks for the best
};

// ---- what is known when a kernel is made ----

enum FunctionConstant : uint32_t {
  kHasNorm,     // the rows of x go through an RMS norm first
  kStoresNorm,  // whose result is kept
  kAligned,     // rows of x begin at a multiple of 16 bytes
  kHasKNorm,    // of heads: keys have a norm; kHasNorm says whether queries do
  kHasRope,
  kHasBias,
  kAccumulates,
  kClamped,   // ExpertActivation::clamped
  kOnlyGate,  // gate and up in different formats take two dispatches: the first leaves the gate in out,
  kOnlyUp,    // the second multiplies it by up
  kHasExperts,
  kHasSinks,
  kIsLatent,
  kIsInterleaved,
  kIsSigmoid,
  kSplits,  // threadgroups share the positions of a head
  kNumFunctionConstants,
};

// ---- a packed matrix (packed_matrix.h) ----

struct PackedMatrixArguments {
  ByteCount scales_at, factors_at;  // bytes from its start
  uint32_t N;                       // rows of an expert
  uint32_t num_chunks;              // of a row
  uint32_t code_row_bytes, scale_row_bytes;
};
static_assert(sizeof(PackedMatrixArguments) == 32, "the same for host and shader");

// ---- one struct for each kernel ----

struct EmbedArguments {
  PackedMatrixArguments w;
  uint32_t K, out_stride;
};
static_assert(sizeof(EmbedArguments) == 40, "the same for host and shader");

struct RmsNormArguments {
  uint32_t width;  // of a head
  uint32_t x_stride, out_stride;
  float eps;
};
static_assert(sizeof(RmsNormArguments) == 16, "the same for host and shader");

struct LinearArguments {
  PackedMatrixArguments w[kMostParts];
  uint32_t first_threadgroup[kMostParts];  // of each part, ~0 if there is none
  uint32_t out_stride[kMostParts];
  uint32_t M, K, x_stride, normed_stride;
  float norm_eps;
  uint32_t padding;
};
static_assert(sizeof(LinearArguments) == 144, "the same for host and shader");

struct HeadLinearArguments {
  PackedMatrixArguments w;
  uint32_t M, K, x_stride, x_head_stride, out_stride, padding;
};
static_assert(sizeof(HeadLinearArguments) == 56, "the same for host and shader");

struct RopeArguments {
  uint32_t stride, head_dim, first, num_pairs, M;
};
static_assert(sizeof(RopeArguments) == 20, "the same for host and shader");

struct KvAppendArguments {
  uint32_t k_width, v_width, k_stride, v_stride, num_rows;
};
static_assert(sizeof(KvAppendArguments) == 20, "the same for host and shader");

struct HeadArguments {  // of queries, or of keys
  uint32_t head_dim, stride;
  uint32_t norm_width, rope_first;  // the columns that are normed are the first
  float eps;
};
struct HeadsArguments {
  HeadArguments q, k;
  uint32_t num_heads, num_kv_heads, v_stride, num_pairs, num_rows, M;
};
static_assert(sizeof(HeadsArguments) == 64, "the same for host and shader");

struct AttentionArguments {
  uint32_t key_dim, value_dim;  // of a head
  uint32_t group_size;          // query heads that share a key
  uint32_t q_stride, out_stride;
  uint32_t q_rope_stride, q_rope_head_stride, q_rope_first;  // of latent attention: where a head's rotated part is
  uint32_t k_width, v_width, num_rows, window;
  float scale;
  uint32_t num_heads, num_splits, most_parts;  // threadgroups that share the parts of a head; parts that there may be
  uint32_t M;
};
static_assert(sizeof(AttentionArguments) == 68, "the same for host and shader");

struct SwigluArguments {
  uint32_t width, gate_stride, up_stride, out_stride;
};
static_assert(sizeof(SwigluArguments) == 16, "the same for host and shader");

struct RouteArguments {
  uint32_t num_experts, top_k, num_groups, top_groups;
  uint32_t logits_stride, experts_stride, weights_stride;
  uint32_t normalise, has_bias;
  float scale;
};
static_assert(sizeof(RouteArguments) == 40, "the same for host and shader");

struct GateUpArguments {
  PackedMatrixArguments gate, up;
  uint32_t M, K, x_stride, out_stride, top_k, has_gate_bias, has_up_bias;
  float alpha, limit, norm_eps;
};
static_assert(sizeof(GateUpArguments) == 104, "the same for host and shader");

struct MoeDownArguments {
  PackedMatrixArguments w;
  uint32_t K, x_stride, top_k, padding;
};
static_assert(sizeof(MoeDownArguments) == 48, "the same for host and shader");

struct SortPairsArguments {
  uint32_t M, top_k, num_experts, experts_stride;
  uint32_t piece, most_pieces;  // pairs of a piece; pieces that there may be
};
static_assert(sizeof(SortPairsArguments) == 24, "the same for host and shader");

struct SumExpertsArguments {
  uint32_t N, top_k, weights_stride, out_stride;
};
static_assert(sizeof(SumExpertsArguments) == 16, "the same for host and shader");

struct ChooseArguments {  // of the next token
  uint32_t N, logits_stride, num_slices, top_k;
  float temperature, top_p, min_p;
};
static_assert(sizeof(ChooseArguments) == 28, "the same for host and shader");

struct MergeArguments {
  uint32_t num_lists, row_lists;  // of kCandidates each: of a row, and the place that a row has
};
static_assert(sizeof(MergeArguments) == 8, "the same for host and shader");

struct CopyRowsArguments {
  uint32_t width, x_stride, out_stride, first_row;
};
static_assert(sizeof(CopyRowsArguments) == 16, "the same for host and shader");

struct ReadMemoryArguments {
  uint32_t words_per_thread;  // of 16 bytes
};
static_assert(sizeof(ReadMemoryArguments) == 4, "the same for host and shader");

}  // namespace nibble
