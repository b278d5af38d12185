#include "backends/cpu/fuse.h"

#include <algorithm>
#include <span>
#include <stdexcept>

namespace nibble {

namespace {

bool is_swiglu_of(const Op& op, const std::vector<LinearOp>& linears) {
  const auto* swiglu = std::get_if<SwigluOp>(&op);
  if (swiglu == nullptr || linears.size() < 2) return false;
  const LinearOp &gate = linears[linears.size() - 2], &up = linears.back();
  const std::span others(linears.begin(), linears.size() - 2);
  return swiglu->gate == gate.out && swiglu->up == up.out && !gate.accumulate && !up.accumulate &&
         !swiglu->out.overlaps(gate.x) &&
         std::ranges::none_of(others, [&](const LinearOp& l) { return l.out.overlaps(swiglu->out); });
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

// Whether ops give a token's rows from that token's own: not what comes first, nor what chooses rows.
bool run_together(const Step& step, const RowOp& a, const RowOp& b) {
  const auto has_rows = [](const RowOp& op) {
    return !std::holds_alternative<EmbedOp>(op) && !std::holds_alternative<SelectLogitsOp>(op);
  };
  return has_rows(a) && has_rows(b) && step.num_rows(rows_of(a)) == step.num_rows(rows_of(b));
}

// Whether the rotation leaves alone what the other reads of each head.
bool is_apart(const RopeOp& rope, const HeadLinearOp& other) {
  return rope.x == other.x && rope.num_heads == other.num_heads && other.K > 0 && rope.first >= other.K;
}

bool is_independent(const Op& a, const Op& b) {
  const auto* rope = std::get_if<RopeOp>(&a);
  const auto* head_linear = std::get_if<HeadLinearOp>(&b);
  if (rope != nullptr && head_linear != nullptr && is_apart(*rope, *head_linear)) return true;
  const OpSlices of_a = op_slices(a), of_b = op_slices(b);
  const auto meet = [](const std::vector<Slice>& written, const std::vector<Slice>& others) {
    return std::ranges::any_of(written, [&](const Slice& w) {
      return std::ranges::any_of(others, [&](const Slice& o) { return w.overlaps(o); });
    });
  };
  return !meet(of_a.writes, of_b.reads) && !meet(of_a.writes, of_b.writes) && !meet(of_b.writes, of_a.reads);
}

// Whether each worker chooses for itself while others compute with what they have chosen: for one token, if the experts leave
// alone what the choice reads and writes.
bool choose_themselves(const Step& step, const RouteOp& route, const MoeGateUpOp& gate_up) {
  const Slice& out = gate_up.out;
  return step.M == 1 && route.experts == gate_up.experts && !out.overlaps(route.logits) &&
         !out.overlaps(route.experts) && !out.overlaps(route.expert_weights);
}

// The step with choices of experts moved to where these begin, if nothing between depends on them.
Step with_late_choices(Step step) {
  for (size_t i = 0; i < step.ops.size(); i++) {
    if (!std::holds_alternative<RouteOp>(step.ops[i])) continue;
    size_t last = i;
    while (last + 1 < step.ops.size() && is_independent(step.ops[i], step.ops[last + 1])) last++;
    const auto* gate_up = last + 1 < step.ops.size() ? std::get_if<MoeGateUpOp>(&step.ops[last + 1]) : nullptr;
    if (gate_up == nullptr || !choose_themselves(step, std::get<RouteOp>(step.ops[i]), *gate_up)) continue;
    const auto at = step.ops.begin() + static_cast<std::ptrdiff_t>(i);
    std::rotate(at, at + 1, at + static_cast<std::ptrdiff_t>(last - i + 1));
  }
  return step;
}

// The first half of experts at ops[i], with their choice if that comes just before; moves i behind it.
std::optional<ExpertGroup> expert_group(const Step& step, size_t& i) {
  const auto* route = std::get_if<RouteOp>(&step.ops[i]);
  const size_t at = route != nullptr ? i + 1 : i;
  const auto* gate_up = at < step.ops.size() ? std::get_if<MoeGateUpOp>(&step.ops[at]) : nullptr;
  if (gate_up == nullptr || (route != nullptr && !choose_themselves(step, *route, *gate_up))) return {};
  i = at + 1;
  return ExpertGroup{route != nullptr ? std::optional(*route) : std::nullopt, *gate_up};
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

// The ops of a group that may stand beside another; none of an attention, whose phases are its own.
std::vector<Op> ops_of(const OpGroup& group) {
  std::vector<Op> ops;
  if (const auto* linear = std::get_if<LinearGroup>(&group)) {
    if (linear->norm) ops.emplace_back(*linear->norm);
    ops.insert(ops.end(), linear->linears.begin(), linear->linears.end());
    if (linear->swiglu) ops.emplace_back(*linear->swiglu);
  } else if (const auto* rows = std::get_if<RowGroup>(&group)) {
    for (const RowOp& row_op : rows->ops) std::visit([&](const auto& op) { ops.emplace_back(op); }, row_op);
  } else if (const auto* head_linear = std::get_if<HeadLinearOp>(&group)) {
    ops.emplace_back(*head_linear);
  } else if (const auto* experts = std::get_if<ExpertGroup>(&group)) {
    if (experts->route) ops.emplace_back(*experts->route);
    ops.emplace_back(experts->gate_up);
  }
  return ops;
}

bool rounds_in_common_memory(const OpGroup& group) {
  return std::holds_alternative<LinearGroup>(group) || std::holds_alternative<HeadLinearOp>(group);
}

bool are_independent(const OpGroup& a, const OpGroup& b) {
  const std::vector<Op> ops_a = ops_of(a), ops_b = ops_of(b);
  if (ops_a.empty() || ops_b.empty() || (rounds_in_common_memory(a) && rounds_in_common_memory(b))) return false;
  return std::ranges::all_of(ops_a, [&](const Op& op) {
    return std::ranges::all_of(ops_b, [&](const Op& other) { return is_independent(op, other); });
  });
}

// Puts the group, which follows those, into one of them or beside them, if it can run there.
bool join(const Step& step, SideBySide& before, const OpGroup& group) {
  OpGroup* into = nullptr;  // rows that it goes on with
  if (const auto* rows = std::get_if<RowGroup>(&group))
    for (OpGroup& other : before)
      if (const auto* o = std::get_if<RowGroup>(&other); o != nullptr && run_together(step, o->ops[0], rows->ops[0]))
        into = &other;
  for (const OpGroup& other : before)
    if (&other != into && !are_independent(other, group)) return false;
  if (into == nullptr)
    before.push_back(group);
  else
    std::get<RowGroup>(*into).ops.push_back(std::get<RowGroup>(group).ops[0]);
  return true;
}

}  // namespace

Slice rows_of(const RowOp& op) {
  struct {
    Slice operator()(const EmbedOp& o) const { return o.out; }
    Slice operator()(const RmsNormOp& o) const { return o.x; }
    Slice operator()(const RopeOp& o) const { return o.x; }
    Slice operator()(const KvAppendOp& o) const { return o.k; }
    Slice operator()(const SwigluOp& o) const { return o.out; }
    Slice operator()(const RouteOp& o) const { return o.logits; }
    Slice operator()(const SelectLogitsOp& o) const { return o.out; }
  } rows;
  return std::visit(rows, op);
}

std::vector<SideBySide> fuse(const Step& recorded) {
  const Step step = with_late_choices(recorded);
  std::vector<SideBySide> all;
  for (size_t i = 0; i < step.ops.size();) {
    OpGroup group;
    if (auto linear = linear_group(step, i)) {
      group = std::move(*linear);
    } else if (auto attention = attention_group(step, i)) {
      group = std::move(*attention);
    } else if (auto experts = expert_group(step, i)) {
      group = *experts;
    } else {
      group = alone(step.ops[i++]);
    }
    if (all.empty() || !join(step, all.back(), group)) all.push_back({std::move(group)});
  }
  return all;
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
  } else if (const auto* experts = std::get_if<ExpertGroup>(&group)) {
    if (experts->route) add("route");
    add("moe_gate_up");
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
