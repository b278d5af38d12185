#include "backends/metal/metal_fuse.h"

#include <algorithm>
#include <stdexcept>

#include "backends/metal/arguments.h"

namespace nibble::metal_fusion {

namespace {

using FormatOf = std::function<FormatId(WeightId)>;

template <class T>
const T* op_at(const Step& step, size_t i) {
  return i < step.ops.size() ? std::get_if<T>(&step.ops[i]) : nullptr;
}

// The linears from ops[first] on that read exactly x and write apart from it and from each other.
std::vector<LinearOp> linears_of(const Step& step, size_t first, const Slice& x) {
  std::vector<LinearOp> linears;
  for (size_t i = first; const LinearOp* linear = op_at<LinearOp>(step, i); i++) {
    if (linear->x != x || linear->out.overlaps(x)) break;
    if (std::ranges::any_of(linears, [&](const LinearOp& l) { return l.out.overlaps(linear->out); })) break;
    linears.push_back(*linear);
  }
  return linears;
}

bool may_share_dispatch(const LinearOp& a, const LinearOp& b, const FormatOf& format) {
  return format(a.w) == format(b.w) && bool{a.bias} == bool{b.bias} && a.accumulate == b.accumulate;
}

// A dispatch for linears from ops[i] on, or for a norm and linears; moves i behind them.
bool add_linears(const Step& step, size_t& i, const FormatOf& format, std::vector<Dispatch>& out) {
  const RmsNormOp* norm = op_at<RmsNormOp>(step, i);
  const LinearOp* first = op_at<LinearOp>(step, i + (norm != nullptr ? 1 : 0));
  if (first == nullptr || (norm != nullptr && (norm->num_heads != 1 || first->x != norm->out))) return false;
  const std::vector<LinearOp> linears = linears_of(step, norm != nullptr ? i + 1 : i, first->x);
  if (linears.empty()) throw std::logic_error("a recorded linear's out overlaps its x");
  size_t next = i + linears.size() + (norm != nullptr ? 1 : 0);

  const SwigluOp* swiglu = op_at<SwigluOp>(step, next);
  const bool is_pair =
      swiglu != nullptr && linears.size() == 2 && swiglu->gate == linears[0].out && swiglu->up == linears[1].out &&
      !swiglu->out.overlaps(first->x) && format(linears[0].w) == format(linears[1].w) && !linears[0].accumulate &&
      !linears[1].accumulate && is_dead(step, next + 1, swiglu->gate) && is_dead(step, next + 1, swiglu->up);
  if (norm != nullptr) {
    // All threadgroups read the norm's x while some have written their results.
    const bool is_kept = !is_dead(step, next, norm->out);
    if (is_kept && (is_pair || norm->out.overlaps(norm->x))) return false;
    const auto overlaps_x = [&](const Slice& slice) { return slice.overlaps(norm->x); };
    if (std::ranges::any_of(linears, overlaps_x, &LinearOp::out) || (is_pair && overlaps_x(swiglu->out))) return false;
  }
  if (is_pair) {
    DenseGateUp pair{.gate = linears[0], .up = linears[1], .swiglu = *swiglu};
    if (norm != nullptr) pair.norm = *norm;
    out.emplace_back(pair);
    i = next + 1;
    return true;
  }
  bool stores_norm = norm != nullptr && !is_dead(step, next, norm->out);
  for (size_t n = 0; n < linears.size();) {
    Linears group{.stores_norm = stores_norm};
    if (norm != nullptr) group.norm = *norm;
    for (; n < linears.size() && group.linears.size() < kMostParts; n++) {
      if (!group.linears.empty() && !may_share_dispatch(group.linears[0], linears[n], format)) break;
      group.linears.push_back(linears[n]);
    }
    stores_norm = false;  // the first of them does it for all
    out.emplace_back(std::move(group));
  }
  i = next;
  return true;
}

// Whether x is the attention's q, or a slice that can be its k and is the same each time.
enum class Which { q, k, neither };
Which which(const Slice& x, int64_t num_heads, const AttentionOp& a, const KvAppendOp& append) {
  if (x == a.q && num_heads == a.num_heads) return Which::q;
  return x == append.k && num_heads == a.num_kv_heads ? Which::k : Which::neither;
}

// What comes before an attention, from ops[i] on; moves i to the attention.
std::optional<Heads> heads_before_attention(const Step& step, size_t& i) {
  size_t end = i;
  const KvAppendOp* append = nullptr;
  for (; end < step.ops.size() && append == nullptr; end++) {
    append = op_at<KvAppendOp>(step, end);
    if (append == nullptr && op_at<RmsNormOp>(step, end) == nullptr && op_at<RopeOp>(step, end) == nullptr) return {};
  }
  const AttentionOp* attention = op_at<AttentionOp>(step, end);
  if (append == nullptr || attention == nullptr) return {};
  const int64_t kv_width = attention->num_kv_heads * attention->head_dim;
  if (append->layer != attention->layer || append->k.width != kv_width || append->v.width != kv_width ||
      append->k.overlaps(attention->q) || append->v.overlaps(attention->q) || append->v.overlaps(append->k))
    return {};

  Heads heads{.append = *append, .attention = *attention};
  for (size_t n = i; n + 1 < end; n++) {
    if (const RmsNormOp* norm = op_at<RmsNormOp>(step, n)) {
      const Which x = which(norm->x, norm->num_heads, *attention, *append);
      if (x == Which::neither || norm->x != norm->out) return {};
      auto& place = x == Which::q ? heads.q_norm : heads.k_norm;
      if (place || (x == Which::q ? heads.q_rope : heads.k_rope)) return {};
      place = *norm;
    } else {
      const RopeOp& rope = std::get<RopeOp>(step.ops[n]);
      const Which x = which(rope.x, rope.num_heads, *attention, *append);
      auto& place = x == Which::q ? heads.q_rope : heads.k_rope;
      if (x == Which::neither || place || rope.head_dim != attention->head_dim) return {};
      place = rope;
    }
  }
  if (heads.q_rope.has_value() != heads.k_rope.has_value()) return {};
  if (heads.q_rope && (heads.q_rope->rotation != heads.k_rope->rotation || heads.q_rope->first != heads.k_rope->first ||
                       heads.q_rope->interleaved != heads.k_rope->interleaved))
    return {};
  i = end;
  return heads;
}

}  // namespace

std::vector<Dispatch> fuse(const Step& step, const FormatOf& packed_format) {
  std::vector<Dispatch> dispatches;
  for (size_t i = 0; i < step.ops.size();) {
    if (add_linears(step, i, packed_format, dispatches)) continue;
    if (const auto heads = heads_before_attention(step, i)) {
      dispatches.emplace_back(*heads);
      continue;
    }
    std::visit(
        [&]<class T>(const T& op) {
          if constexpr (std::is_same_v<T, MoeGateUpOp>) {
            const bool is_one = packed_format(op.gate) == packed_format(op.up);
            for (int part = is_one ? 0 : 1; part <= (is_one ? 0 : 2); part++)
              dispatches.emplace_back(ExpertGateUp{.op = op, .part = part});
          } else if constexpr (!std::is_same_v<T, LinearOp>) {  // which add_linears has taken
            dispatches.emplace_back(op);
          }
        },
        step.ops[i++]);
  }
  return dispatches;
}

std::string dispatch_name(const Dispatch& dispatch) {
  if (const auto* linears = std::get_if<Linears>(&dispatch))
    return (linears->norm ? "rms_norm + " : "") +
           (linears->linears.size() == 1 ? "linear" : std::to_string(linears->linears.size()) + " linears");
  if (const auto* pair = std::get_if<DenseGateUp>(&dispatch))
    return pair->norm ? "rms_norm + 2 linears + swiglu" : "2 linears + swiglu";
  if (const auto* heads = std::get_if<Heads>(&dispatch)) {
    std::string name;
    if (heads->q_norm || heads->k_norm) name += "rms_norm + ";
    if (heads->q_rope) name += "rope + ";
    return name + "kv_append";
  }
  if (const auto* gate_up = std::get_if<ExpertGateUp>(&dispatch))
    return gate_up->part == 0 ? "moe_gate_up" : gate_up->part == 1 ? "moe_gate" : "moe_up";
  return std::visit(
      [](const auto& op) -> std::string {
        if constexpr (std::is_constructible_v<Op, decltype(op)>) return std::string(op_name(Op(op)));
        return {};
      },
      dispatch);
}

}  // namespace nibble::metal_fusion
