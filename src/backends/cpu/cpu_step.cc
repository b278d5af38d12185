#include "backends/cpu/cpu_step.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <optional>

#include "backends/cpu/ask_ahead.h"
#include "backends/cpu/cpu_attention.h"
#include "backends/cpu/cpu_moe.h"
#include "backends/cpu/cpu_scratch.h"
#include "backends/cpu/cpu_step_memory.h"
#include "backends/cpu/float_kernels.h"
#include "backends/cpu/fuse.h"
#include "backends/cpu/linears.h"
#include "backends/cpu/row_ops.h"
#include "backends/cpu/row_shares.h"
#include "base/memory.h"
#include "base/piece_queues.h"
#include "ops/choose_gemm.h"

namespace nibble {

namespace {

using Clock = std::chrono::steady_clock;

using Matrix = FloatRows;

// A group's part of a phase, in pieces that workers take. begin(worker) comes before a worker's first one, if it gets any;
// of worker 0 always. compute is told what the worker will read then.
struct PhasePart {
  int64_t weight_bytes;
  std::vector<Range> of_worker;  // the pieces that each begins with
  std::function<void(int worker)> begin;
  std::function<void(int64_t piece, RowsToCome next, int worker)> compute;
  std::function<RowsToCome(int64_t piece)> first_rows;  // that a piece reads; empty if it reads no weights
  bool known_before = true;  // whether first_rows may be asked in phases before: not while experts are being chosen
  std::function<int64_t()> bytes_now = {};  // of weights, in this run, once worker 0 has begun; empty: weight_bytes
  int64_t last_bytes = weight_bytes;        // in the last run
};

struct PlacedPiece {
  size_t part;
  int64_t piece;
};

struct CompiledPhase {
  Phase info;
  std::function<void(int worker)> work;  // empty if there are parts
  std::vector<PhasePart> parts;
  PiecesOf<PlacedPiece> pieces;       // of all parts
  std::optional<int> attended_layer;  // whose cache it reads
  std::function<bool()> is_wanted;    // the same for all workers; empty: always

  int64_t last_bytes() const {
    int64_t bytes = 0;
    for (const PhasePart& part : parts) bytes += part.last_bytes;
    return bytes;
  }
};

class CpuStep final : public CompiledStep {
 public:
  CpuStep(const Step& step, std::span<const PackedWeight* const> weights, const KvCacheShape& cache_shape,
          WorkerPool& pool, int activation_bits)
      : step_(step),
        pool_(pool),
        num_workers_(pool.num_threads()),
        max_len_(cache_shape.max_len),
        memory_(step_, weights),
        rows_(memory_, num_workers_),
        linears_(step.linear_route, activation_bits, weights, num_workers_),
        asked_(static_cast<size_t>(num_workers_)) {
    const std::vector<SideBySide> groups = fuse(step_);
    const CpuScratchPlan plan = plan_cpu_scratch(step_, groups, shape_of(), max_len_);
    common_activations_ = Buffer(static_cast<size_t>(plan.common_activations));
    for (int worker = 0; worker < num_workers_; worker++)
      own_activations_.emplace_back(static_cast<size_t>(plan.own_activations));
    for (const SideBySide& side_by_side : groups) {
      first_phase_ = phases_.size();
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
    pool_.run([this](int worker) { run_phases(worker); });
    const Matrix result = matrix(step_.logits);
    for (int64_t m = 0; m < result.rows; m++)
      std::copy_n(result.row(m), result.width, logits.data() + m * result.width);
  }

  int64_t weight_bytes() const override {
    int64_t bytes = 0;
    for (const CompiledPhase& phase : phases_) bytes += phase.info.weight_bytes;
    return bytes;
  }
  int64_t last_weight_bytes() const override {
    int64_t bytes = 0;
    for (const CompiledPhase& phase : phases_) bytes += phase.last_bytes();
    return bytes;
  }
  int64_t scratch_bytes() const override {
    size_t bytes = memory_.bytes() + rows_.scratch_bytes();
    bytes += common_activations_.size();
    for (const Buffer& buffer : own_activations_) bytes += buffer.size();
    for (const auto& a : attentions_) bytes += static_cast<size_t>(a->scratch_bytes());
    for (const auto& scratch : moe_scratch_) bytes += scratch->bytes();
    bytes += linears_.scratch_bytes();
    return static_cast<int64_t>(bytes);
  }
  std::vector<Phase> phases() const override {
    std::vector<Phase> infos;
    for (const CompiledPhase& phase : phases_) infos.push_back(phase.info);
    return infos;
  }
  void set_profiling(bool on) override { profiling_ = on; }

 private:
  void run_phases(int worker) {
    auto start = profiling_ ? Clock::now() : Clock::time_point{};
    fill_queue(0, worker);
    for (size_t i = 0; i < phases_.size(); i++) {
      CompiledPhase& phase = phases_[i];
      fill_queue(i + 1, worker);  // before the barrier: others need not wait for this worker to begin
      if (phase.is_wanted && !phase.is_wanted()) continue;
      if (phase.parts.empty())
        phase.work(worker);
      else
        run_pieces(i, worker);
      const uint32_t arrival = pool_.arrive();
      AskAhead& ahead = asked_[static_cast<size_t>(worker)];
      ahead.begin(first_rows_after(i, worker));
      while (!pool_.all_arrived(arrival) && ahead.ask(kLinesWaiting)) {}
      pool_.wait(arrival);
      if (profiling_ && worker == 0) {
        const auto end = Clock::now();
        phase.info.seconds += std::chrono::duration<double>(end - start).count();
        phase.info.read_bytes += phase.last_bytes();
        phase.info.cache_bytes += cache_bytes(phase);
        start = end;
      }
    }
  }

  void run_pieces(size_t place, int worker) {
    CompiledPhase& phase = phases_[place];
    PieceQueues& queue = queue_of(place);
    uint64_t begun = 0;  // a bit for each part
    const auto begin = [&](size_t part, RowsToCome first) {
      if ((begun >> part & 1) != 0) return;
      begun |= uint64_t{1} << part;
      asked_[static_cast<size_t>(worker)].begin(first);
      phase.parts[part].begin(worker);
    };
    for (int64_t i; (i = queue.take(worker)) >= 0;) {
      const PlacedPiece& at = phase.pieces.pieces[static_cast<size_t>(i)];
      begin(at.part, first_rows(phase, i));
      const int64_t next = queue.peek(worker);
      phase.parts[at.part].compute(at.piece, next >= 0 ? first_rows(phase, next) : first_rows_after(place, worker),
                                   worker);
    }
    for (size_t part = 0; worker == 0 && part < phase.parts.size(); part++) {
      begin(part, {});
      if (phase.parts[part].bytes_now) phase.parts[part].last_bytes = phase.parts[part].bytes_now();
    }
  }

  // Neighbouring phases take turns with two queues: nobody takes from the one while the other is filled. (Where one between
  // them is not wanted, its neighbours have the same queue: whoever comes first finds it empty but for what is filled.)
  PieceQueues& queue_of(size_t phase) { return queues_[phase % 2]; }
  void fill_queue(size_t phase, int worker) {
    if (phase < phases_.size() && !phases_[phase].parts.empty())
      queue_of(phase).fill(worker, phases_[phase].pieces.of_worker[static_cast<size_t>(worker)]);
  }

  static RowsToCome first_rows(const CompiledPhase& phase, int64_t i) {
    const PlacedPiece& at = phase.pieces.pieces[static_cast<size_t>(i)];
    const PhasePart& part = phase.parts[at.part];
    return part.first_rows ? part.first_rows(at.piece) : RowsToCome{};
  }

  // What the worker begins with in the next phase with weights, unless the cache is read before, or it is not known yet.
  RowsToCome first_rows_after(size_t i, int worker) const {
    while (++i < phases_.size() && !phases_[i].attended_layer) {
      const CompiledPhase& phase = phases_[i];
      if (phase.parts.empty()) continue;
      // Nor what comes after: it may depend on the same choice.
      if (!std::ranges::all_of(phase.parts, &PhasePart::known_before)) return {};
      const Range& own = phase.pieces.of_worker[static_cast<size_t>(worker)];
      for (int64_t piece = own.first; piece < own.last; piece++)
        if (phase.parts[phase.pieces.pieces[static_cast<size_t>(piece)].part].first_rows)
          return first_rows(phase, piece);
    }
    return {};
  }

  // What each token's attention reads.
  int64_t cache_bytes(const CompiledPhase& phase) const {
    if (!phase.attended_layer) return 0;
    const KvCacheShape& shape = memory_.cache->shape;
    const KvLayer& layer = shape.layers[static_cast<size_t>(*phase.attended_layer)];
    int64_t positions = 0;
    for (const int32_t pos : memory_.inputs.pos)
      positions += layer.window > 0 ? std::min<int64_t>(layer.window, pos + 1) : pos + 1;
    return positions * layer.bytes(shape.type);
  }

  Matrix matrix(const Slice& slice) const { return memory_.matrix(slice); }
  const PackedMatrix& packed(WeightId id) const { return memory_.packed(id); }
  const float* vector(WeightId id) const { return memory_.vector(id); }

  CompiledPhase& add_phase(std::string name, std::function<void(int)> work) {
    CompiledPhase phase;
    phase.info.name = std::move(name);
    phase.work = std::move(work);
    return phases_.emplace_back(std::move(phase));
  }

  // A phase of its own, or one more part of the last one if that is of a group which this stands beside.
  template <class Piece>
  PhasePart& add_part(std::string name, int64_t weight_bytes, PiecesOf<Piece> all, std::function<void(int)> begin,
                      std::function<void(const Piece&, RowsToCome next, int worker)> compute,
                      std::function<RowsToCome(const Piece&)> first_rows = {}) {
    const auto pieces = std::make_shared<const std::vector<Piece>>(std::move(all.pieces));
    PhasePart part{.weight_bytes = weight_bytes,
                   .of_worker = std::move(all.of_worker),
                   .begin = std::move(begin),
                   .compute = [pieces, compute = std::move(compute)](int64_t i, RowsToCome next, int worker) {
                     compute((*pieces)[static_cast<size_t>(i)], next, worker);
                   }};
    if (first_rows)
      part.first_rows = [pieces, first_rows = std::move(first_rows)](int64_t i) {
        return first_rows((*pieces)[static_cast<size_t>(i)]);
      };
    const bool joins = phases_.size() > first_phase_ && !phases_.back().parts.empty();
    CompiledPhase& phase = joins ? phases_.back() : add_phase(name, {});
    if (joins) phase.info.name += " | " + name;
    phase.info.weight_bytes += weight_bytes;
    phase.parts.push_back(std::move(part));
    place_pieces(phase);
    return phase.parts.back();
  }

  // What reads no weights comes first: one worker does it, while the others begin with theirs and take over its rows.
  void place_pieces(CompiledPhase& phase) {
    phase.pieces = {};
    for (size_t worker = 0; worker < static_cast<size_t>(num_workers_); worker++) {
      const auto first = static_cast<int64_t>(phase.pieces.pieces.size());
      for (const bool with_weights : {false, true})
        for (size_t p = 0; p < phase.parts.size(); p++) {
          if ((phase.parts[p].weight_bytes > 0) != with_weights) continue;
          const Range own = phase.parts[p].of_worker[worker];
          for (int64_t i = own.first; i < own.last; i++) phase.pieces.pieces.push_back({p, i});
        }
      phase.pieces.of_worker.push_back({first, static_cast<int64_t>(phase.pieces.pieces.size())});
    }
  }

  // ---- linears ----

  RowPieces pieces_of(const LinearGroup& group) const {
    std::vector<SharedMatrix> matrices;
    for (const LinearOp& op : group.linears) matrices.push_back({packed(op.w).N, packed(op.w).bytes});
    if (group.swiglu) matrices.resize(1);  // rows of gate and up go together
    return pieces_of(matrices);
  }
  // Kernels for many tokens take two blocks at a time.
  RowPieces pieces_of(std::span<const SharedMatrix> matrices) const {
    return cut_shares(share_rows(matrices, pool_.teams()), matrices, step_.M > kRedundantTokens ? 2 : 1);
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
    if (!group.swiglu) return compute(group.linears[share.index], next);
    compute(group.linears[0], rows_to_come(packed(group.linears[1].w), 0, share.first_row));
    compute(group.linears[1], next);
    const Matrix gate = matrix(group.swiglu->gate), up = matrix(group.swiglu->up), out = matrix(group.swiglu->out);
    for (int64_t m = 0; m < x.M; m++)
      floats_.swiglu(gate.row(m) + share.first_row, up.row(m) + share.first_row, share.last_row - share.first_row,
                     out.row(m) + share.first_row);
  }

  // Norms tokens if the group has a norm, and rounds them into x. `keeps`: of a norm whose result is kept.
  void prepare_tokens(const LinearGroup& group, const Activations& x, Range tokens, bool keeps, int worker) {
    if (group.norm) {
      const Matrix from = matrix(group.norm->x), kept = matrix(group.norm->out);
      for (int64_t m = tokens.first; m < tokens.last; m++) {
        float* normed = const_cast<float*>(x.x) + m * x.x_stride;  // in memory that is for this
        floats_.rms_norm(from.row(m), vector(group.norm->weight), group.norm->eps, x.K, normed);
        if (keeps) std::copy_n(normed, x.K, kept.row(m));
      }
    }
    const int64_t groups = activation_groups(x.K);
    prepare_asking(kernels_, x, tokens.first * groups, tokens.last * groups, asked_[static_cast<size_t>(worker)]);
  }

  // Activations over the slice, or over `memory` if a norm fills them; rounded in `memory`.
  Activations make_activations(const LinearGroup& group, const Buffer& memory) const {
    const Matrix rows = matrix(group.x);
    Activations x{
        .M = rows.rows, .K = rows.width, .x = rows.data, .x_stride = rows.stride, .bits = linears_.activation_bits};
    if (group.norm) {
      x.x = memory.as<float>();
      x.x_stride = x.K;
    }
    x.groups = reinterpret_cast<ActivationGroup*>(memory.data() + normed_bytes(group, x.M));
    return x;
  }

  void compile(const LinearGroup& group, const std::string& ops) {
    const std::string name =
        fmt::format("{} ({})", ops, linear_kernel_name(choose_linear(matrix(group.x).rows, step_.linear_route)));
    int64_t bytes = 0;
    for (const LinearOp& op : group.linears) bytes += packed(op.w).bytes;
    RowPieces pieces = pieces_of(group);
    const auto first_rows = [this, group](const RowShare& share) {
      return rows_to_come(packed(group.linears[share.index].w), 0, share.first_row);
    };
    const int64_t M = matrix(group.x).rows;
    if (M <= kRedundantTokens) {
      std::vector<Activations> own;
      for (const Buffer& memory : own_activations_) own.push_back(make_activations(group, memory));
      add_part<RowShare>(
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
    add_phase(group.norm ? "rms_norm + round" : "round", [this, group, x, M](int worker) {
      prepare_tokens(group, x, worker_range(M, 1, worker, num_workers_), group.keeps_norm, worker);
    });
    add_part<RowShare>(
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
  const CpuAttention& attention(const AttentionShape& shape) {
    for (const auto& a : attentions_)
      if (a->shape == shape) return *a;
    return *attentions_.emplace_back(std::make_unique<CpuAttention>(shape, num_workers_));
  }
  // Attention over what is in the cache: each worker some of the tokens' key and value heads, or some of the positions.
  template <class Op>
  void add_attention(const Op& op, const std::string& name) {
    const CpuAttention& a = attention(attention_shape(op, step_.M, max_len_));
    if (!a.split) {
      add_phase(name, [this, op, &a](int worker) {
        const int64_t kv_heads = a.shape.num_kv_heads;
        const auto [first, last] = worker_range(step_.M * kv_heads, 1, worker, num_workers_);
        for (int64_t i = first; i < last; i++)
          a.attend(*memory_.cache, query(op, i / kv_heads), {i % kv_heads, i % kv_heads + 1}, worker);
      });
      phases_.back().attended_layer = op.layer;
      return;
    }
    PieceQueues& queue = queue_of(phases_.size());
    add_phase(name, [this, op, &a, &queue](int worker) {
      const KvCacheType type = memory_.cache->shape.type;
      int64_t count = 0;
      for (int64_t m = 0; m < step_.M; m++) count += a.num_pieces(query(op, m), type);
      queue.fill(worker, worker_range(count, 1, worker, num_workers_));
      int64_t token_before = -1;
      for (int64_t piece; (piece = queue.take(worker)) >= 0;) {
        int64_t m = 0, first = 0;  // the piece's token, and that token's first piece
        for (int64_t n; first + (n = a.num_pieces(query(op, m), type)) <= piece; m++) first += n;
        a.attend_piece(*memory_.cache, query(op, m), m, piece - first, m == token_before, worker);
        token_before = m;
      }
    });
    phases_.back().attended_layer = op.layer;
    CompiledPhase& merge = add_phase("merge", [this, op, &a](int worker) {
      const int64_t count = a.num_merges();
      const Range units = worker_range(step_.M * count, 1, worker, num_workers_);
      for (int64_t i = units.first; i < units.last; i++)
        if (a.is_merged(memory_.inputs.pos[static_cast<size_t>(i / count)]))
          a.merge(query(op, i / count), i / count, i % count);
    });
    merge.is_wanted = [this, &a] {
      return std::ranges::any_of(memory_.inputs.pos, [&](int32_t pos) { return a.is_merged(pos); });
    };
  }

  void compile(const AttentionGroup& group, const std::string& name) {
    const CpuAttention& a = attention(attention_shape(group.attention, step_.M, max_len_));
    const auto prepare = [this, group](int worker) {
      const Range heads = worker_range(group.attention.num_kv_heads, 1, worker, num_workers_);
      for (const RowOp& op : group.prepare) rows_.prepare_heads(op, group.attention, heads);
    };
    // Where all workers have the same number of key and value heads, each attends to those that it prepared.
    if (group.attention.num_kv_heads % num_workers_ == 0) {
      add_phase(name, [this, prepare, &a, op = group.attention](int worker) {
        prepare(worker);
        const Range heads = worker_range(op.num_kv_heads, 1, worker, num_workers_);
        for (int64_t m = 0; m < step_.M; m++) a.attend(*memory_.cache, query(op, m), heads, worker);
      });
      phases_.back().attended_layer = group.attention.layer;
    } else {
      if (!group.prepare.empty()) add_phase("heads", prepare);
      add_attention(group.attention, "attention");
    }
  }

  void compile(const LatentAttentionOp& op, const std::string& name) { add_attention(op, name); }

  // Each worker rows of some heads, of which it rounds the activations itself.
  void compile(const HeadLinearOp& op, const std::string& name) {
    const PackedMatrix& w = packed(op.w);
    const Matrix x = matrix(op.x), out = matrix(op.out);
    const int64_t head_dim = x.width / op.num_heads;
    const bool rounds = group_size(w.format) > 1;
    // As if the heads' rows were one matrix, each head's filled up to whole blocks.
    const int64_t head_rows = (w.N + kBlockRows - 1) / kBlockRows * kBlockRows;
    const SharedMatrix all{op.num_heads * head_rows, weight_bytes(op)};
    add_part<RowShare>(
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
        [&w](const RowShare& rows) { return rows_to_come(w, 0, rows.first_row); });
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

  // known_before: the experts are chosen when the phase before runs.
  template <class Experts>
  void add_expert_phases(const Op& op, const std::string& name, Experts experts, bool known_before) {
    if (!experts.scratch->shape.alone)
      add_phase("sort + round", [experts, this](int worker) {
        experts.prepare(worker, num_workers_, asked_[static_cast<size_t>(worker)]);
      });
    const int64_t one = weight_bytes_read(op, 1, size(), 1);
    const MoeShape& shape = experts.scratch->shape;
    const SharedMatrix rows{shape.N, weight_bytes(op)};
    PhasePart& part = add_part<ExpertPiece>(
        name, weight_bytes(op), expert_pieces(shape, pieces_of({&rows, 1})),
        [experts, this](int worker) {
          if (experts.scratch->shape.alone) experts.prepare(worker, num_workers_, asked_[static_cast<size_t>(worker)]);
        },
        [experts](const ExpertPiece& piece, RowsToCome next, int worker) { experts.compute(worker, piece, next); },
        [experts](const ExpertPiece& piece) {
          return nibble::first_rows(experts.first_matrix(), experts.scratch->shape, experts.experts, piece);
        });
    part.known_before = known_before;
    part.bytes_now = [experts, one] { return experts.scratch->num_chosen(0) * one; };
  }
  void compile(const MoeGateUpOp& op, const std::string& name) {
    const MoeShape shape = moe_shape(op, step_.M, shape_of()(op.gate));
    add_expert_phases(op, name,
                      MoeGateUp{.op = op,
                                .gate = {&packed(op.gate), vector(op.gate_bias)},
                                .up = {&packed(op.up), vector(op.up_bias)},
                                .x = matrix(op.x),
                                .experts = matrix(op.experts),
                                .out = matrix(op.out),
                                .scratch = &moe_scratch(shape)},
                      false);
  }
  void compile(const MoeDownOp& op, const std::string& name) {
    const MoeShape shape = moe_shape(op, step_.M, shape_of()(op.down));
    const MoeDown experts{.down = {&packed(op.down), vector(op.bias)},
                          .x = matrix(op.x),
                          .experts = matrix(op.experts),
                          .expert_weights = matrix(op.expert_weights),
                          .out = matrix(op.out),
                          .scratch = &moe_scratch(shape)};
    const bool chosen_before =
        groups_before_ != nullptr && std::ranges::any_of(*groups_before_, [&](const OpGroup& group) {
          const auto* gate_up = std::get_if<MoeGateUpOp>(&group);
          return gate_up != nullptr && gate_up->experts == op.experts;
        });
    add_expert_phases(op, name, experts, chosen_before);
    if (pieces_have_all_experts(shape)) return;
    add_phase("sum", [this, experts, shape](int worker) {
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
    add_part<int>(
        name, 0, std::move(shares), [](int) {},
        [this, group](int share, RowsToCome, int) {
          for (const RowOp& op : group.ops) rows_.run(op, share);
        });
  }

  Step step_;
  WorkerPool& pool_;
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
  std::vector<CompiledPhase> phases_;
  // While groups are compiled: those before, and the first phase of those that stand side by side now.
  const SideBySide* groups_before_ = nullptr;
  size_t first_phase_ = 0;
  std::vector<AskAhead> asked_;  // by worker
  PieceQueues queues_[2] = {PieceQueues(pool_.teams()), PieceQueues(pool_.teams())};
  bool profiling_ = false;
};

}  // namespace

std::unique_ptr<CompiledStep> compile_cpu_step(const Step& step, std::span<const PackedWeight* const> weights,
                                               const KvCacheShape& cache_shape, WorkerPool& pool, int activation_bits) {
  return std::make_unique<CpuStep>(step, weights, cache_shape, pool, activation_bits);
}

}  // namespace nibble
