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

  const int64_t M = step.num_rows(step.buffers[static_cast<size_t>(first->x.buffer)].rows);
  const SwigluOp* swiglu = op_at<SwigluOp>(step, next);
  const bool is_pair = swiglu != nullptr && !takes_tiles(M) && linears.size() == 2 && swiglu->gate == linears[0].out &&
                       swiglu->up == linears[1].out && !swiglu->out.overlaps(first->x) &&
                       format(linears[0].w) == format(linears[1].w) && !linears[0].accumulate &&
                       !linears[1].accumulate && is_dead(step, next + 1, swiglu->gate) &&
                       is_dead(step, next + 1, swiglu->up);
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

bool turn_alike(const RopeOp& a, const RopeOp& b) { return a.rotation == b.rotation && a.interleaved == b.interleaved; }

// The place of the append that ends a run of norms and rotations from ops[first] on.
std::optional<size_t> append_after_heads(const Step& step, size_t first) {
  for (size_t i = first; i < step.ops.size(); i++) {
    if (op_at<KvAppendOp>(step, i) != nullptr) return i;
    if (op_at<RmsNormOp>(step, i) == nullptr && op_at<RopeOp>(step, i) == nullptr) break;
  }
  return {};
}

// Queries and keys of heads, from ops[i] on, with the attention that follows; moves i to it.
std::optional<Heads> heads(const Step& step, size_t& i) {
  const std::optional<size_t> end = append_after_heads(step, i);
  const AttentionOp* a = end ? op_at<AttentionOp>(step, *end + 1) : nullptr;
  if (a == nullptr) return {};
  const KvAppendOp& append = std::get<KvAppendOp>(step.ops[*end]);
  const int64_t kv_width = a->num_kv_heads * a->head_dim;
  if (append.layer != a->layer || append.k.width != kv_width || append.v.width != kv_width || append.k.overlaps(a->q) ||
      append.v.overlaps(a->q) || append.v.overlaps(append.k))
    return {};

  Heads heads{.q = a->q, .num_heads = a->num_heads, .num_kv_heads = a->num_kv_heads, .append = append};
  std::optional<RopeOp> k_rope;
  for (size_t n = i; n < *end; n++) {
    const RmsNormOp* norm = op_at<RmsNormOp>(step, n);
    const RopeOp* rope = op_at<RopeOp>(step, n);
    const Slice& x = norm != nullptr ? norm->x : rope->x;
    const int64_t num_heads = norm != nullptr ? norm->num_heads : rope->num_heads;
    const bool is_q = x == a->q && num_heads == a->num_heads, is_k = x == append.k && num_heads == a->num_kv_heads;
    if (!is_q && !is_k) return {};
    auto& own_rope = is_q ? heads.rope : k_rope;
    auto& own_norm = is_q ? heads.q_norm : heads.k_norm;
    if (own_rope || (norm != nullptr && (own_norm || norm->out != x))) return {};
    if (norm != nullptr)
      own_norm = *norm;
    else
      own_rope = *rope;
  }
  if (heads.rope.has_value() != k_rope.has_value()) return {};
  if (k_rope) {
    if (!turn_alike(*heads.rope, *k_rope)) return {};
    heads.k_rope_first = k_rope->first;
  }
  i = *end + 1;
  return heads;
}

// The same for latents: a norm of their first columns, a rotation of their last ones and of the queries.
std::optional<Heads> latent_heads(const Step& step, size_t& i) {
  const std::optional<size_t> end = append_after_heads(step, i);
  if (!end || *end != i + 3) return {};
  const RmsNormOp* norm = op_at<RmsNormOp>(step, i);
  const RopeOp *k_rope = op_at<RopeOp>(step, i + 1), *q_rope = op_at<RopeOp>(step, i + 2);
  const KvAppendOp& append = std::get<KvAppendOp>(step.ops[*end]);
  const Slice& k = append.k;
  if (norm == nullptr || k_rope == nullptr || q_rope == nullptr || append.v.width != 0) return {};
  if (norm->num_heads != 1 || norm->out != norm->x || norm->x != Slice{k.buffer, k.first, norm->x.width}) return {};
  const int64_t rope_width = k.width - norm->x.width;
  if (k_rope->num_heads != 1 || k_rope->x != Slice{k.buffer, k.first + norm->x.width, rope_width} ||
      !turn_alike(*k_rope, *q_rope) || q_rope->x.overlaps(k))
    return {};
  i = *end + 1;
  return Heads{.q = q_rope->x,
               .num_heads = q_rope->num_heads,
               .num_kv_heads = 1,
               .k_norm = *norm,
               .rope = *q_rope,
               .k_rope_first = norm->x.width + k_rope->first,
               .append = append};
}

}  // namespace

std::vector<Dispatch> fuse(const Step& step, const FormatOf& packed_format) {
  std::vector<Dispatch> dispatches;
  for (size_t i = 0; i < step.ops.size();) {
    if (add_linears(step, i, packed_format, dispatches)) continue;
    auto before_attention = heads(step, i);
    if (!before_attention) before_attention = latent_heads(step, i);
    if (before_attention) {
      dispatches.emplace_back(*before_attention);
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

std::vector<WeightId> matrices_of(const Dispatch& dispatch) {
  return std::visit(
      []<class T>(const T& d) -> std::vector<WeightId> {
        if constexpr (std::is_same_v<T, Linears>) {
          std::vector<WeightId> all;
          for (const LinearOp& op : d.linears) all.push_back(op.w);
          return all;
        } else if constexpr (std::is_same_v<T, DenseGateUp>) {
          return {d.gate.w, d.up.w};
        } else if constexpr (std::is_same_v<T, ExpertGateUp>) {
          if (d.part == 0) return {d.op.gate, d.op.up};
          return {d.part == 1 ? d.op.gate : d.op.up};
        } else if constexpr (std::is_same_v<T, MoeDownOp>) {
          return {d.down};
        } else if constexpr (std::is_same_v<T, EmbedOp> || std::is_same_v<T, HeadLinearOp>) {
          return {d.w};
        } else {
          return {};
        }
      },
      dispatch);
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
    if (heads->rope) name += "rope + ";
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
