#include "ops/step.h"

namespace nibble {

namespace {

template <class... Visitors>
struct Overloaded : Visitors... {
  using Visitors::operator()...;
};

}  // namespace

std::string_view op_name(const Op& op) {
  return std::visit(
      Overloaded{[](const EmbedOp&) { return "embed"; }, [](const RmsNormOp&) { return "rms_norm"; },
                 [](const LinearOp&) { return "linear"; }, [](const RopeOp&) { return "rope"; },
                 [](const KvAppendOp&) { return "kv_append"; }, [](const AttentionOp&) { return "attention"; },
                 [](const SwigluOp&) { return "swiglu"; }, [](const SelectLogitsOp&) { return "select_logits"; }},
      op);
}

OpSlices op_slices(const Op& op) {
  return std::visit(Overloaded{[](const EmbedOp& o) { return OpSlices{{}, {o.out}}; },
                               [](const RmsNormOp& o) { return OpSlices{{o.x}, {o.out}}; },
                               [](const LinearOp& o) {
                                 return o.accumulate ? OpSlices{{o.x, o.out}, {o.out}} : OpSlices{{o.x}, {o.out}};
                               },
                               [](const RopeOp& o) { return OpSlices{{o.x}, {o.x}}; },
                               [](const KvAppendOp& o) { return OpSlices{{o.k, o.v}, {}}; },
                               [](const AttentionOp& o) { return OpSlices{{o.q}, {o.out}}; },
                               [](const SwigluOp& o) { return OpSlices{{o.gate, o.up}, {o.out}}; },
                               [](const SelectLogitsOp& o) { return OpSlices{{o.x}, {o.out}}; }},
                    op);
}

}  // namespace nibble
