#include "backends/cpu/fuse.h"

#include <algorithm>
#include <stdexcept>

namespace nibble {

namespace {

// The linears from `first` on that read exactly x and write apart from it and from each other.
std::vector<LinearOp> linears_of(const Step& step, size_t first, const Slice& x) {
  std::vector<LinearOp> linears;
  for (size_t i = first; i < step.ops.size(); i++) {
    const auto* linear = std::get_if<LinearOp>(&step.ops[i]);
    if (linear == nullptr || linear->x != x || linear->out.overlaps(x)) break;
    if (std::ranges::any_of(linears, [&](const LinearOp& l) { return l.out.overlaps(linear->out); })) break;
    linears.push_back(*linear);
  }
  return linears;
}

bool is_swiglu_of(const Op& op, const std::vector<LinearOp>& linears) {
  const auto* swiglu = std::get_if<SwigluOp>(&op);
  return swiglu != nullptr && linears.size() == 2 && swiglu->gate == linears[0].out && swiglu->up == linears[1].out &&
         !linears[0].accumulate && !linears[1].accumulate && !swiglu->out.overlaps(linears[0].x);
}

// Tries a linear group at ops[i]; moves i behind it.
std::optional<LinearGroup> linear_group(const Step& step, size_t& i) {
  LinearGroup group;
  size_t next = i;
  const auto* norm = std::get_if<RmsNormOp>(&step.ops[i]);
  if (norm != nullptr) {
    if (norm->num_heads != 1) return {};
    group.norm = *norm;
    group.x = norm->out;
    next++;
  } else if (const auto* linear = std::get_if<LinearOp>(&step.ops[i])) {
    group.x = linear->x;
  } else {
    return {};
  }
  group.linears = linears_of(step, next, group.x);
  if (group.linears.empty()) return {};
  next += group.linears.size();
  if (next < step.ops.size() && is_swiglu_of(step.ops[next], group.linears))
    group.swiglu = std::get<SwigluOp>(step.ops[next++]);
  if (norm != nullptr) {
    // Each worker has the norm's result for itself, and the rows that it reads must not change meanwhile.
    const bool keeps_x =
        std::ranges::none_of(group.linears, [&](const LinearOp& l) { return l.out.overlaps(norm->x); }) &&
        !(group.swiglu && group.swiglu->out.overlaps(norm->x));
    group.keeps_norm = !is_dead(step, next, norm->out);
    if (!keeps_x || (group.keeps_norm && norm->out.overlaps(norm->x))) return {};
  }
  i = next;
  return group;
}

std::optional<RowOp> as_row_op(const Op& op) {
  return std::visit(
      []<class T>(const T& o) -> std::optional<RowOp> {
        if constexpr (std::is_constructible_v<RowOp, T>) return o;
        return {};
      },
      op);
}

// Whether op works on q or k of the attention, head by head, so that it splits by key and value heads.
bool prepares_heads(const RowOp& op, const AttentionOp& a) {
  const int64_t kv_width = a.num_kv_heads * a.head_dim;
  const auto is_q_or_k = [&](const Slice& x, int64_t num_heads) {
    if (x == a.q) return num_heads == a.num_heads;
    return x.width == kv_width && num_heads == a.num_kv_heads && !x.overlaps(a.q);
  };
  if (const auto* norm = std::get_if<RmsNormOp>(&op))
    return norm->x == norm->out && is_q_or_k(norm->x, norm->num_heads);
  if (const auto* rope = std::get_if<RopeOp>(&op)) return is_q_or_k(rope->x, rope->num_heads);
  if (const auto* append = std::get_if<KvAppendOp>(&op))
    return append->layer == a.layer && append->k.width == kv_width && append->v.width == kv_width;
  return false;
}

// The ops from ops[i] on that prepare the heads of the next attention, and that attention; moves i behind it.
std::optional<AttentionGroup> attention_group(const Step& step, size_t& i) {
  size_t end = i;
  while (end < step.ops.size() && as_row_op(step.ops[end])) end++;
  if (end == step.ops.size() || !std::holds_alternative<AttentionOp>(step.ops[end])) return {};
  AttentionGroup group{.attention = std::get<AttentionOp>(step.ops[end])};
  for (size_t n = i; n < end; n++) {
    group.prepare.push_back(*as_row_op(step.ops[n]));
    if (!prepares_heads(group.prepare.back(), group.attention)) return {};
  }
  i = end + 1;
  return group;
}

// The rows of an op that gives a token's from that token's own; of what comes first or chooses rows none.
std::optional<Slice> rows_of(const RowOp& op) {
  struct {
    std::optional<Slice> operator()(const EmbedOp&) const { return {}; }
    std::optional<Slice> operator()(const RmsNormOp& o) const { return o.x; }
    std::optional<Slice> operator()(const RopeOp& o) const { return o.x; }
    std::optional<Slice> operator()(const KvAppendOp& o) const { return o.k; }
    std::optional<Slice> operator()(const SwigluOp& o) const { return o.out; }
    std::optional<Slice> operator()(const RouteOp& o) const { return o.logits; }
    std::optional<Slice> operator()(const SelectLogitsOp&) const { return {}; }
  } rows;
  return std::visit(rows, op);
}

bool run_together(const Step& step, const RowOp& a, const RowOp& b) {
  const std::optional<Slice> rows_a = rows_of(a), rows_b = rows_of(b);
  return rows_a && rows_b && step.num_rows(*rows_a) == step.num_rows(*rows_b);
}

OpGroup alone(const Op& op) {
  if (const std::optional<RowOp> row_op = as_row_op(op)) return RowGroup{{*row_op}};
  return std::visit(
      []<class T>(const T& o) -> OpGroup {
        if constexpr (std::is_constructible_v<OpGroup, T>) return o;
        throw std::logic_error("a recorded linear's out overlaps its x");
      },
      op);
}

}  // namespace

std::vector<OpGroup> fuse(const Step& step) {
  std::vector<OpGroup> groups;
  for (size_t i = 0; i < step.ops.size();) {
    if (auto linear = linear_group(step, i)) {
      groups.emplace_back(std::move(*linear));
    } else if (auto attention = attention_group(step, i)) {
      groups.emplace_back(std::move(*attention));
    } else {
      OpGroup group = alone(step.ops[i++]);
      auto* const rows = std::get_if<RowGroup>(&group);
      auto* const before = groups.empty() ? nullptr : std::get_if<RowGroup>(&groups.back());
      if (rows != nullptr && before != nullptr && run_together(step, before->ops.back(), rows->ops[0])) {
        before->ops.push_back(rows->ops[0]);
      } else {
        groups.push_back(std::move(group));
      }
    }
  }
  return groups;
}

namespace {
std::string_view row_op_name(const RowOp& op) {
  return std::visit([](const auto& o) { return op_name(o); }, op);
}
}  // namespace

std::string group_name(const OpGroup& group) {
  std::string name;
  const auto add = [&](std::string_view op) { name += (name.empty() ? "" : " + ") + std::string(op); };
  if (const auto* linear = std::get_if<LinearGroup>(&group)) {
    if (linear->norm) add("rms_norm");
    add(linear->linears.size() == 1 ? "linear" : std::to_string(linear->linears.size()) + " linears");
    if (linear->swiglu) add("swiglu");
  } else if (const auto* attention = std::get_if<AttentionGroup>(&group)) {
    for (const RowOp& op : attention->prepare) add(row_op_name(op));
    add("attention");
  } else if (const auto* rows = std::get_if<RowGroup>(&group)) {
    for (const RowOp& op : rows->ops) add(row_op_name(op));
  } else {
    std::visit(
        [&]<class T>(const T& op) {
          if constexpr (std::is_constructible_v<Op, T>) add(op_name(op));
        },
        group);
  }
  return name;
}

}  // namespace nibble
