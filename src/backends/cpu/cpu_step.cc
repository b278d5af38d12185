#include "backends/cpu/cpu_step.h"

#include <algorithm>
#include <functional>

#include "backends/cpu/cpu_attention.h"
#include "backends/cpu/cpu_moe.h"
#include "backends/cpu/cpu_phases.h"
#include "backends/cpu/cpu_scratch.h"
#include "backends/cpu/cpu_step_memory.h"
#include "backends/cpu/float_kernels.h"
#include "backends/cpu/fuse.h"
#include "backends/cpu/linears.h"
#include "backends/cpu/row_ops.h"
#include "backends/cpu/row_shares.h"
#include "base/memory.h"
#include "ops/choose_gemm.h"

namespace nibble {

namespace {

using Matrix = FloatRows;

class CpuStep final : public CompiledStep {
 public:
  CpuStep(const Step& step, std::span<const PackedWeight* const> weights, const KvCacheShape& cache_shape,
          WorkerPool& pool, int activation_bits)
      : step_(step),
        phases_(pool),
        num_workers_(pool.num_threads()),
        max_len_(cache_shape.max_len),
        memory_(step_, weights),
        rows_(memory_, num_workers_),
        linears_(step.linear_route, activation_bits, weights, num_workers_) {
    const std::vector<SideBySide> groups = fuse(step_);
    const CpuScratchPlan plan = plan_cpu_scratch(step_, groups, shape_of(), max_len_);
    common_activations_ = Buffer(static_cast<size_t>(plan.common_activations));
    for (int worker = 0; worker < num_workers_; worker++)
      own_activations_.emplace_back(static_cast<size_t>(plan.own_activations));
    for (const SideBySide& side_by_side : groups) {
      phases_.begin_groups();
      for (const OpGroup& group : side_by_side) {
        const std::string name = group_name(group);
        std::visit([&](const auto& g) { compile(g, name); }, group);
      }
      groups_before_ = &side_by_side;
    }
    groups_before_ = nullptr;
  }

  void run(const StepInputs& inputs, KvCache& cache, std::span<float> logits) override {
    memory_.begin(inputs, static_cast<CpuKvCache&>(cache));
    phases_.run();
    const Matrix result = matrix(step_.logits);
    for (int64_t m = 0; m < result.rows; m++)
      std::copy_n(result.row(m), result.width, logits.data() + m * result.width);
  }

  int64_t weight_bytes() const override { return phases_.weight_bytes(); }
  int64_t last_weight_bytes() const override { return phases_.last_weight_bytes(); }
  int64_t scratch_bytes() const override {
    size_t bytes = memory_.bytes() + rows_.scratch_bytes();
    bytes += common_activations_.size();
    for (const Buffer& buffer : own_activations_) bytes += buffer.size();
    for (const auto& a : attentions_) bytes += static_cast<size_t>(a->scratch_bytes());
    for (const auto& scratch : moe_scratch_) bytes += scratch->bytes();
    bytes += linears_.scratch_bytes();
    return static_cast<int64_t>(bytes);
  }
  std::vector<Phase> phases() const override { return phases_.infos(); }
  void set_profiling(bool on) override { phases_.set_profiling(on); }

 private:
  // What each token's attention reads.
  int64_t cache_bytes(int of_layer) const {
    const KvCacheShape& shape = memory_.cache->shape;
    const KvLayer& layer = shape.layers[static_cast<size_t>(of_layer)];
    int64_t positions = 0;
    for (const int32_t pos : memory_.inputs.pos)
      positions += layer.window > 0 ? std::min<int64_t>(layer.window, pos + 1) : pos + 1;
    return positions * layer.bytes(shape.type);
  }

  Matrix matrix(const Slice& slice) const { return memory_.matrix(slice); }
  const PackedMatrix& packed(WeightId id) const { return memory_.packed(id); }
  const float* vector(WeightId id) const { return memory_.vector(id); }

  // Whether the matrix takes rounded activations: floats and transposed FP4 do not.
  bool takes_rounded(WeightId id) const { return group_size(packed(id).format) > 1; }

  // ---- linears ----

  RowPieces pieces_of(const LinearGroup& group) const {
    std::vector<SharedMatrix> matrices;
    for (const LinearOp& op : group.linears) matrices.push_back({packed(op.w).N, packed(op.w).bytes});
    if (group.swiglu) {  // rows of gate and up go together
      const int64_t up_bytes = matrices.back().bytes;
      matrices.pop_back();
      matrices.back().bytes += up_bytes;
    }
    return pieces_of(matrices);
  }
  // Kernels for many tokens take two blocks at a time.
  RowPieces pieces_of(std::span<const SharedMatrix> matrices) const {
    return cut_shares(share_rows(matrices, phases_.pool().teams()), matrices, step_.M > kRedundantTokens ? 2 : 1);
  }

  void compute_rows(const LinearGroup& group, const Activations& x, const RowShare& share, RowsToCome next,
                    int worker) const {
    const auto compute = [&](const LinearOp& op, RowsToCome after) {
      const Matrix out = matrix(op.out);
      linears_.run({.w = &packed(op.w),
                    .first_row = share.first_row,
                    .last_row = share.last_row,
                    .x = &x,
                    .num_tokens = x.M,
                    .out = out.data,
                    .out_stride = out.stride,
                    .bias = vector(op.bias),
                    .accumulate = op.accumulate,
                    .next = after},
                   worker);
    };
    if (share.index < group.num_plain()) return compute(group.linears[share.index], next);
    compute(group.linears[share.index], rows_to_come(packed(group.linears.back().w), 0, share.first_row));
    compute(group.linears.back(), next);
    const Matrix gate = matrix(group.swiglu->gate), up = matrix(group.swiglu->up), out = matrix(group.swiglu->out);
    for (int64_t m = 0; m < x.M; m++)
      floats_.swiglu(gate.row(m) + share.first_row, up.row(m) + share.first_row, share.last_row - share.first_row,
                     out.row(m) + share.first_row);
  }

  // Norms tokens if the group has a norm, and rounds them into x.groups, if those are there. `keeps`: of a norm whose result is
  // kept.
  void prepare_tokens(const LinearGroup& group, const Activations& x, Range tokens, bool keeps, int worker) {
    if (group.norm) {
      const Matrix from = matrix(group.norm->x), kept = matrix(group.norm->out);
      for (int64_t m = tokens.first; m < tokens.last; m++) {
        float* normed = const_cast<float*>(x.x) + m * x.x_stride;  // in memory that is for this
        floats_.rms_norm(from.row(m), vector(group.norm->weight), group.norm->eps, x.K, normed);
        if (keeps) std::copy_n(normed, x.K, kept.row(m));
      }
    }
    if (x.groups == nullptr) return;
    const int64_t groups = activation_groups(x.K);
    prepare_asking(kernels_, x, tokens.first * groups, tokens.last * groups, phases_.asked(worker));
  }

  // Activations over the slice, or over `memory` if a norm fills them; rounded in `memory`, if a matrix takes them so.
  Activations make_activations(const LinearGroup& group, const Buffer& memory) const {
    const Matrix rows = matrix(group.x);
    Activations x{
        .M = rows.rows, .K = rows.width, .x = rows.data, .x_stride = rows.stride, .bits = linears_.activation_bits};
    if (group.norm) {
      x.x = memory.as<float>();
      x.x_stride = x.K;
    }
    if (std::ranges::any_of(group.linears, [&](const LinearOp& op) { return takes_rounded(op.w); }))
      x.groups = reinterpret_cast<ActivationGroup*>(memory.data() + normed_bytes(group, x.M));
    return x;
  }

  void compile(const LinearGroup& group, const std::string& ops) {
    const std::string name =
        fmt::format("{} ({})", ops, linear_kernel_name(choose_linear(matrix(group.x).rows, step_.linear_route)));
    int64_t bytes = 0;
    for (const LinearOp& op : group.linears) bytes += packed(op.w).bytes;
    RowPieces pieces = pieces_of(group);
    const auto first_rows = [this, group](const RowShare& share, int) {
      return rows_to_come(packed(group.linears[share.index].w), 0, share.first_row);
    };
    const int64_t M = matrix(group.x).rows;
    if (M <= kRedundantTokens) {
      std::vector<Activations> own;
      for (const Buffer& memory : own_activations_) own.push_back(make_activations(group, memory));
      phases_.add_part<RowShare>(
          name, bytes, std::move(pieces),
          [this, group, own, M](int worker) {
            prepare_tokens(group, own[static_cast<size_t>(worker)], {0, M}, group.keeps_norm && worker == 0, worker);
          },
          [this, group, own](const RowShare& rows, RowsToCome next, int worker) {
            compute_rows(group, own[static_cast<size_t>(worker)], rows, next, worker);
          },
          first_rows);
      return;
    }
    const Activations x = make_activations(group, common_activations_);
    const bool rounds = x.groups != nullptr;
    const auto prepare = [this, group, x, M](int worker) {
      prepare_tokens(group, x, worker_range(M, 1, worker, num_workers_), group.keeps_norm, worker);
    };
    if (group.norm || rounds)
      phases_.add_phase(!rounds ? "rms_norm" : group.norm ? "rms_norm + round" : "round", prepare);
    phases_.add_part<RowShare>(
        name, bytes, std::move(pieces), [](int) {},
        [this, group, x](const RowShare& rows, RowsToCome next, int worker) {
          compute_rows(group, x, rows, next, worker);
        },
        first_rows);
  }

  // ---- attention ----

  AttentionQuery query(const AttentionOp& a, int64_t m) const {
    const auto i = static_cast<size_t>(m);
    return {.q = {{matrix(a.q).row(m), a.head_dim, a.head_dim}},
            .pos = memory_.inputs.pos[i],
            .layer = a.layer,
            .sequence = memory_.inputs.sequence[i],
            .scale = a.scale,
            .sinks = a.sinks ? vector(a.sinks) : nullptr,
            .out = matrix(a.out).row(m)};
  }
  // The latent of a position is key and value in one.
  AttentionQuery query(const LatentAttentionOp& a, int64_t m) const {
    const auto i = static_cast<size_t>(m);
    const int64_t q_head_dim = a.q.width / a.num_heads;
    return {.q = {{matrix(a.q_latent).row(m), a.latent_dim, a.latent_dim},
                  {matrix(a.q).row(m) + q_head_dim - a.rope_dim, q_head_dim, a.rope_dim}},
            .pos = memory_.inputs.pos[i],
            .layer = a.layer,
            .sequence = memory_.inputs.sequence[i],
            .values_are_keys = true,
            .scale = a.scale,
            .sinks = nullptr,
            .out = matrix(a.out).row(m)};
  }

  // Attentions of one shape take turns with the same scratch.
  CpuAttention& attention(const AttentionShape& shape) {
    for (const auto& a : attentions_)
      if (a->shape == shape) return *a;
    return *attentions_.emplace_back(std::make_unique<CpuAttention>(shape, num_workers_));
  }
  // A phase of attention over what is in the cache, begun by prepare(worker). Its pieces are shared where tokens are few: then
  // each worker begins with those of its worker_range, be they heads. Else each has its own heads of all tokens.
  template <class Op>
  void add_attention(const Op& op, const std::string& name, const std::function<void(int)>& prepare) {
    // Whether the attention just before is to be merged depends on what this one writes, if they share their scratch: some
    // workers would ask too late. So they merge what is left, if anything, and meet.
    if (CompiledPhase* before = phases_.last()) before->is_wanted = {};
    CpuAttention& a = attention(attention_shape(op, step_.M, max_len_));
    PieceQueues& queue = phases_.next_queue();
    CompiledPhase& phase = phases_.add_phase(name, [this, op, prepare, &a, &queue](int worker) {
      if (prepare) prepare(worker);
      if (a.shared) return attend_pieces(op, a, queue, worker);
      const int64_t kv_heads = a.shape.num_kv_heads, M = step_.M;
      const auto [first, last] = worker_range(M * kv_heads, 1, worker, num_workers_);
      for (int64_t i = first; i < last; i++) a.attend(*memory_.cache, query(op, i % M), {i / M, i / M + 1}, worker);
    });
    phase.cache_bytes = [this, layer = op.layer] { return cache_bytes(layer); };
    if (!a.shared) return;
    CompiledPhase& merge = phases_.add_phase("merge", [this, op, &a](int worker) {
      const int64_t count = a.num_merges();
      const Range units = worker_range(step_.M * count, 1, worker, num_workers_);
      for (int64_t i = units.first; i < units.last; i++) a.merge(query(op, i / count), i / count, i % count);
    });
    merge.is_wanted = [this, &a] { return a.needs_merge(memory_.inputs.pos); };
  }
  template <class Op>
  void attend_pieces(const Op& op, CpuAttention& a, PieceQueues& queue, int worker) {
    const auto piece = [&](int64_t i) { return a.piece(memory_.inputs.pos, memory_.cache->shape.type, i); };
    const int64_t count = a.num_pieces(memory_.inputs.pos, memory_.cache->shape.type);
    queue.fill(worker, worker_range(count, 1, worker, num_workers_));
    for (int64_t i; (i = queue.take(worker)) >= 0;) {
      const AttentionPiece taken = piece(i);
      const int64_t next = queue.peek(worker);
      a.attend_piece(*memory_.cache, query(op, taken.m), taken, next < 0 ? taken : piece(next), worker);
    }
    a.leave(worker);
  }

  void compile(const AttentionGroup& group, const std::string& name) {
    const auto prepare = [this, group](int worker) {
      const Range heads = worker_range(group.attention.num_kv_heads, 1, worker, num_workers_);
      for (const RowOp& op : group.prepare) rows_.prepare_heads(op, group.attention, heads);
    };
    // Where all workers have the same number of key and value heads, each begins with those that it prepared: others take over
    // none of them before.
    if (group.attention.num_kv_heads % num_workers_ == 0) return add_attention(group.attention, name, prepare);
    if (!group.prepare.empty()) phases_.add_phase("heads", prepare);
    add_attention(group.attention, "attention", {});
  }

  void compile(const LatentAttentionOp& op, const std::string& name) { add_attention(op, name, {}); }

  // Each worker rows of some heads, of which it rounds the activations itself.
  void compile(const HeadLinearOp& op, const std::string& name) {
    const PackedMatrix& w = packed(op.w);
    const Matrix x = matrix(op.x), out = matrix(op.out);
    const int64_t head_dim = x.width / op.num_heads;
    const bool rounds = takes_rounded(op.w);
    // As if the heads' rows were one matrix, each head's filled up to whole blocks.
    const int64_t head_rows = (w.N + kBlockRows - 1) / kBlockRows * kBlockRows;
    const SharedMatrix all{op.num_heads * head_rows, weight_bytes(op)};
    phases_.add_part<RowShare>(
        name, weight_bytes(op), pieces_of({&all, 1}), [](int) {},
        [this, &w, x, out, head_dim, head_rows, rounds](const RowShare& rows, RowsToCome next, int worker) {
          for (int64_t h = rows.first_row / head_rows; h * head_rows < rows.last_row; h++) {
            const Activations head{.M = x.rows,
                                   .K = w.K,
                                   .x = x.data + h * head_dim,
                                   .x_stride = x.stride,
                                   .bits = linears_.activation_bits,
                                   .groups = own_activations_[static_cast<size_t>(worker)].as<ActivationGroup>()};
            if (rounds) kernels_.prepare(head, 0, head.M * activation_groups(head.K));
            linears_.run({.w = &w,
                          .e = h,
                          .first_row = std::max<int64_t>(rows.first_row - h * head_rows, 0),
                          .last_row = std::min(rows.last_row - h * head_rows, w.N),
                          .x = &head,
                          .num_tokens = head.M,
                          .out = out.data + h * w.N,
                          .out_stride = out.stride,
                          .next = (h + 1) * head_rows < rows.last_row ? rows_to_come(w, h + 1, 0) : next},
                         worker);
          }
        },
        [&w](const RowShare& rows, int) { return rows_to_come(w, 0, rows.first_row); });
  }

  // ---- experts ----

  std::function<MatrixSize(WeightId)> size() const {
    return [this](WeightId id) { return MatrixSize{packed(id).E, packed(id).bytes}; };
  }
  std::function<WeightShape(WeightId)> shape_of() const {
    return [this](WeightId id) {
      const PackedMatrix& w = packed(id);
      return WeightShape{.format = w.format, .E = w.E, .N = w.N, .K = w.K, .is_vector = false};
    };
  }
  int64_t weight_bytes(const Op& op) const { return weight_bytes_read(op, step_.M, size()); }

  // Layers of one shape take turns with the same scratch.
  MoeScratch& moe_scratch(const MoeShape& shape) {
    for (const auto& scratch : moe_scratch_)
      if (scratch->shape == shape) return *scratch;
    return *moe_scratch_.emplace_back(std::make_unique<MoeScratch>(shape, linears_, num_workers_));
  }

  // Where each worker finds the chosen experts.
  std::vector<FloatRows> chosen_experts(const std::optional<RouteOp>& own_choice, const Slice& experts) const {
    std::vector<FloatRows> rows;
    for (int worker = 0; worker < num_workers_; worker++)
      rows.push_back(own_choice ? rows_.chosen_experts(*own_choice, worker) : matrix(experts));
    return rows;
  }

  template <class Experts>
  PhasePart& add_expert_phases(const Op& op, const std::string& name, Experts experts, std::vector<FloatRows> chosen) {
    if (!experts.scratch->shape.alone)
      phases_.add_phase("sort + round",
                        [experts, this](int worker) { experts.prepare(worker, num_workers_, phases_.asked(worker)); });
    const int64_t one = weight_bytes_read(op, 1, size(), 1);
    const MoeShape& shape = experts.scratch->shape;
    const SharedMatrix rows{shape.N, weight_bytes(op)};
    PhasePart& part = phases_.add_part<ExpertPiece>(
        name, weight_bytes(op), expert_pieces(shape, pieces_of({&rows, 1})),
        [experts, this](int worker) {
          if (experts.scratch->shape.alone) experts.prepare(worker, num_workers_, phases_.asked(worker));
        },
        [experts](const ExpertPiece& piece, RowsToCome next, int worker) { experts.compute(worker, piece, next); },
        [experts, chosen = std::move(chosen)](const ExpertPiece& piece, int worker) {
          return nibble::first_rows(experts.first_matrix(), experts.scratch->shape, chosen[static_cast<size_t>(worker)],
                                    piece);
        });
    part.bytes_now = [experts, one] { return experts.scratch->num_chosen(0) * one; };
    return part;
  }
  void compile(const ExpertGroup& group, const std::string& name) {
    const MoeGateUpOp& op = group.gate_up;
    const MoeShape shape = moe_shape(op, step_.M, shape_of()(op.gate));
    const std::vector<FloatRows> chosen = chosen_experts(group.route, op.experts);
    PhasePart& part = add_expert_phases(op, name,
                                        MoeGateUp{.op = op,
                                                  .gate = {&packed(op.gate), vector(op.gate_bias)},
                                                  .up = {&packed(op.up), vector(op.up_bias)},
                                                  .x = matrix(op.x),
                                                  .experts = chosen,
                                                  .out = matrix(op.out),
                                                  .scratch = &moe_scratch(shape)},
                                        chosen);
    part.known_before = false;
    if (group.route) part.choose = [this, route = *group.route](int worker) { rows_.choose(route, worker); };
  }
  // Of the same experts, among the groups before; or null.
  const ExpertGroup* first_half_before(const MoeDownOp& op) const {
    if (groups_before_ == nullptr) return nullptr;
    for (const OpGroup& group : *groups_before_) {
      const auto* experts = std::get_if<ExpertGroup>(&group);
      if (experts != nullptr && experts->gate_up.experts == op.experts) return experts;
    }
    return nullptr;
  }
  void compile(const MoeDownOp& op, const std::string& name) {
    const MoeShape shape = moe_shape(op, step_.M, shape_of()(op.down));
    const MoeDown experts{.down = {&packed(op.down), vector(op.bias)},
                          .x = matrix(op.x),
                          .experts = matrix(op.experts),
                          .expert_weights = matrix(op.expert_weights),
                          .out = matrix(op.out),
                          .scratch = &moe_scratch(shape)};
    // In the phase before a worker looks for what it has chosen itself, or, if it took no piece, for what it chose before.
    const ExpertGroup* first_half = first_half_before(op);
    const std::optional<RouteOp> own_choice = first_half != nullptr ? first_half->route : std::nullopt;
    add_expert_phases(op, name, experts, chosen_experts(own_choice, op.experts)).known_before = first_half != nullptr;
    if (pieces_have_all_experts(shape)) return;
    phases_.add_phase("sum", [this, experts, shape](int worker) {
      experts.sum(worker, worker_range(shape.N, kBlockRows, worker, num_workers_));  // that it has multiplied, mostly
    });
  }

  // ---- what runs alone, each worker some of the tokens ----

  void compile(const RowGroup& group, const std::string& name) {
    PiecesOf<int> shares;  // by the worker whose tokens they are
    for (int worker = 0; worker < num_workers_; worker++) {
      const auto first = static_cast<int64_t>(shares.pieces.size());
      if (!rows_.is_empty(group.ops[0], worker)) shares.pieces.push_back(worker);
      shares.of_worker.push_back({first, static_cast<int64_t>(shares.pieces.size())});
    }
    phases_.add_part<int>(
        name, 0, std::move(shares), [](int) {},
        [this, group](int share, RowsToCome, int) {
          for (const RowOp& op : group.ops) rows_.run(op, share);
        });
  }

  Step step_;
  CpuPhases phases_;
  const int num_workers_;
  const int64_t max_len_;
  CpuStepMemory memory_;
  const RowOps rows_;
  const Linears linears_;
  const CpuKernels& kernels_ = cpu_kernels();
  const FloatKernels& floats_ = float_kernels();
  std::vector<std::unique_ptr<CpuAttention>> attentions_;
  std::vector<std::unique_ptr<MoeScratch>> moe_scratch_;
  // Normed rows and rounded activations of the group that runs: of all workers, and of each (CpuScratchPlan).
  Buffer common_activations_;
  std::vector<Buffer> own_activations_;
  const SideBySide* groups_before_ = nullptr;  // while groups are compiled
};

}  // namespace

std::unique_ptr<CompiledStep> compile_cpu_step(const Step& step, std::span<const PackedWeight* const> weights,
                                               const KvCacheShape& cache_shape, WorkerPool& pool, int activation_bits) {
  return std::make_unique<CpuStep>(step, weights, cache_shape, pool, activation_bits);
}

}  // namespace nibble
