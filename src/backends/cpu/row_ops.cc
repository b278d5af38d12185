#include "backends/cpu/row_ops.h"

#include <algorithm>

#include "backends/cpu/cpu_moe.h"

namespace nibble {

namespace {

// A worker's own experts and weights, of the one token of whose experts it chooses for itself.
size_t choice_bytes(const RouteOp& op) { return static_cast<size_t>(2 * op.experts.width) * sizeof(float); }

}  // namespace

size_t largest_route_bytes(const Step& step) {
  size_t bytes = 0;
  for (const Op& op : step.ops)
    if (const auto* r = std::get_if<RouteOp>(&op)) bytes = std::max(bytes, route_scratch_bytes(*r) + choice_bytes(*r));
  return bytes;
}

RowOps::RowOps(const CpuStepMemory& memory, int num_workers) : memory_(memory), num_workers_(num_workers) {
  const size_t route_bytes = largest_route_bytes(memory.step);
  for (int worker = 0; worker < num_workers; worker++) route_scratch_.emplace_back(route_bytes);
}

void RowOps::run(const RowOp& op, int worker) const {
  std::visit([&](const auto& o) { execute(o, worker); }, op);
}

bool RowOps::is_empty(const RowOp& op, int share) const {
  const Range tokens = tokens_of(rows_of(op), share);
  return tokens.first == tokens.last;
}

size_t RowOps::scratch_bytes() const {
  size_t bytes = 0;
  for (const Buffer& buffer : route_scratch_) bytes += buffer.size();
  return bytes;
}

void RowOps::apply(const RmsNormOp& op, Range tokens, Range heads) const {
  const FloatRows x = memory_.matrix(op.x), out = memory_.matrix(op.out);
  const int64_t width = x.width / op.num_heads;
  for (int64_t m = tokens.first; m < tokens.last; m++)
    for (int64_t h = heads.first; h < heads.last; h++)
      floats_.rms_norm(x.row(m) + h * width, memory_.vector(op.weight), op.eps, width, out.row(m) + h * width);
}

void RowOps::apply(const RopeOp& op, Range tokens, Range heads) const {
  const auto half = static_cast<int64_t>(memory_.step.rotations[static_cast<size_t>(op.rotation)].inv_freq.size());
  const FloatRows x = memory_.matrix(op.x);
  for (int64_t m = tokens.first; m < tokens.last; m++) {
    const float* cosine = memory_.turns(op.rotation, m);
    for (int64_t h = heads.first; h < heads.last; h++)
      (op.interleaved ? floats_.rotate_interleaved : floats_.rotate)(x.row(m) + h * op.head_dim + op.first, cosine,
                                                                     cosine + memory_.step.M * half, half);
  }
}

void RowOps::append(const KvAppendOp& op, Range tokens, Range heads, int64_t num_heads) const {
  const auto put = [&](const Slice& slice, int64_t m, int64_t head, auto plane_of) {
    const auto i = static_cast<size_t>(m);
    const int64_t width = slice.width / num_heads;
    const KvPlane plane = plane_of(memory_.inputs.sequence[i], head * width);
    floats_.store(memory_.matrix(slice).row(m) + head * width, width, memory_.cache->shape.type,
                  plane.row(memory_.inputs.pos[i]));
  };
  for (int64_t m = tokens.first; m < tokens.last; m++) {
    for (int64_t h = heads.first; h < heads.last; h++) {
      put(op.k, m, h, [&](int64_t sequence, int64_t column) { return memory_.cache->k(op.layer, sequence, column); });
      if (op.v.width > 0)
        put(op.v, m, h, [&](int64_t sequence, int64_t column) { return memory_.cache->v(op.layer, sequence, column); });
    }
  }
}

void RowOps::prepare_heads(const RowOp& op, const AttentionOp& a, Range heads) const {
  const Range tokens{0, memory_.step.M};
  const auto heads_of = [&](const Slice& slice) {
    const int64_t group = slice == a.q ? a.num_heads / a.num_kv_heads : 1;
    return Range{heads.first * group, heads.last * group};
  };
  if (const auto* norm = std::get_if<RmsNormOp>(&op)) {
    apply(*norm, tokens, heads_of(norm->x));
  } else if (const auto* rope = std::get_if<RopeOp>(&op)) {
    apply(*rope, tokens, heads_of(rope->x));
  } else {
    append(std::get<KvAppendOp>(op), tokens, heads, a.num_kv_heads);
  }
}

Range RowOps::tokens_of(const Slice& slice, int worker) const {
  return worker_range(memory_.matrix(slice).rows, 1, worker, num_workers_);
}

void RowOps::execute(const EmbedOp& op, int worker) const {
  const auto [first, last] = tokens_of(op.out, worker);
  for (int64_t m = first; m < last; m++)
    unpack_row(memory_.packed(op.w), 0, memory_.inputs.tokens[static_cast<size_t>(m)], memory_.matrix(op.out).row(m));
}

void RowOps::execute(const RmsNormOp& op, int worker) const { apply(op, tokens_of(op.x, worker), {0, op.num_heads}); }

void RowOps::execute(const RopeOp& op, int worker) const { apply(op, tokens_of(op.x, worker), {0, op.num_heads}); }

void RowOps::execute(const KvAppendOp& op, int worker) const {
  const int64_t num_heads = memory_.cache->shape.layers[static_cast<size_t>(op.layer)].num_heads;
  append(op, tokens_of(op.k, worker), {0, num_heads}, num_heads);
}

void RowOps::execute(const SwigluOp& op, int worker) const {
  const auto [first, last] = tokens_of(op.out, worker);
  for (int64_t m = first; m < last; m++)
    floats_.swiglu(memory_.matrix(op.gate).row(m), memory_.matrix(op.up).row(m), op.out.width,
                   memory_.matrix(op.out).row(m));
}

void RowOps::execute(const RouteOp& op, int worker) const {
  route(op, tokens_of(op.logits, worker), common_choice(op), worker);
}

void RowOps::choose(const RouteOp& op, int worker) const { route(op, {0, 1}, choice_of(op, worker), worker); }

RowOps::Choice RowOps::common_choice(const RouteOp& op) const {
  return {memory_.matrix(op.experts), memory_.matrix(op.expert_weights)};
}

RowOps::Choice RowOps::choice_of(const RouteOp& op, int worker) const {
  if (worker == 0) return common_choice(op);
  const int64_t top_k = op.experts.width;
  auto* own = reinterpret_cast<float*>(route_scratch_[static_cast<size_t>(worker)].data() + route_scratch_bytes(op));
  return {{own, 1, top_k, top_k}, {own + top_k, 1, top_k, top_k}};
}

void RowOps::route(const RouteOp& op, Range tokens, const Choice& to, int worker) const {
  const FloatRows logits = memory_.matrix(op.logits);
  for (int64_t m = tokens.first; m < tokens.last; m++)
    route_token(op, logits.row(m), memory_.vector(op.correction_bias), to.experts.row(m), to.weights.row(m),
                route_scratch_[static_cast<size_t>(worker)].as<double>());
}

void RowOps::execute(const SelectLogitsOp& op, int worker) const {
  const auto [first, last] = tokens_of(op.out, worker);
  const FloatRows x = memory_.matrix(op.x), out = memory_.matrix(op.out);
  for (int64_t m = first; m < last; m++) std::copy_n(x.row(x.rows - out.rows + m), out.width, out.row(m));
}

}  // namespace nibble
