// Which ops of a step run together, as a group, and which groups side by side: a pure function of the step, the one place that
// knows the patterns. What matches no pattern is a group of its own. A group becomes a phase, or several (cpu_step.cc).
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "ops/step.h"

namespace nibble {

// Linears that read the same rows, perhaps after a norm, perhaps followed by the SwiGLU of the last two. A worker computes
// some rows of each.
struct LinearGroup {
  std::optional<RmsNormOp> norm;
  bool keeps_norm = false;  // ops that follow read the norm's result, too
  Slice x;                  // what the linears read: the norm's result if there is one
  std::vector<LinearOp> linears;
  std::optional<SwigluOp> swiglu;

  // Of those that stand for themselves; then come gate and up.
  size_t num_plain() const { return linears.size() - (swiglu ? 2 : 0); }
};

// An op that can run for some tokens, or some heads, at a time.
using RowOp = std::variant<EmbedOp, RmsNormOp, RopeOp, KvAppendOp, SwigluOp, RouteOp, SelectLogitsOp>;

// What has a row for each token that it works on.
Slice rows_of(const RowOp& op);

// Ops that run token by token, of the same tokens: a worker runs all of them for some of these.
struct RowGroup {
  std::vector<RowOp> ops;
};

// An attention with what happens to its heads just before: norms, rotations, the append to the cache. All of it splits
// by key and value heads.
struct AttentionGroup {
  std::vector<RowOp> prepare;
  AttentionOp attention;
};

// The first half of the chosen experts, of which a worker computes some rows, perhaps after their choice, which every worker
// makes for itself.
struct ExpertGroup {
  std::optional<RouteOp> route;
  MoeGateUpOp gate_up;
};

// The ops among these run alone: a worker computes some heads, or some rows of every chosen expert.
using OpGroup =
    std::variant<LinearGroup, AttentionGroup, RowGroup, HeadLinearOp, LatentAttentionOp, ExpertGroup, MoeDownOp>;

// Groups that follow each other and need nothing of each other, so that no barrier need stand between them. One of them at
// most rounds activations into the memory that groups take turns with.
using SideBySide = std::vector<OpGroup>;

std::vector<SideBySide> fuse(const Step& step);

// "rms_norm + linear + linear + swiglu", for plans.
std::string group_name(const OpGroup& group);

}  // namespace nibble
