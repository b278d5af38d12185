#include "backends/reference/reference_backend.h"

#include <algorithm>
#include <chrono>
#include <ranges>
#include <set>

#include "backends/reference/reference_ops.h"
#include "base/memory.h"
#include "formats/encode.h"

namespace nibble {

namespace {

using reference::Matrix;

struct ReferenceWeight final : PackedWeight {
  CanonicalWeight weight;
};

// Keys and values as float32, rounded to what the cache's type holds on the way in.
struct ReferenceCache final : KvCache {
  explicit ReferenceCache(const KvCacheShape& s) : KvCache(s) {
    for (const KvLayer& layer : s.layers) {
      k.emplace_back(static_cast<size_t>(s.num_sequences * s.kept(layer) * layer.k_width));
      v.emplace_back(static_cast<size_t>(s.num_sequences * s.kept(layer) * layer.v_width));
    }
  }
  void repeat(int64_t sequence, int64_t period, int64_t length) override {
    for (size_t l = 0; l < k.size(); l++) {
      const KvLayer& layer = shape.layers[l];
      const int64_t num_rows = shape.kept(layer), first = sequence * num_rows;
      repeat_rows(k[l].data() + first * layer.k_width, layer.k_width * static_cast<int64_t>(sizeof(float)), num_rows,
                  period, length);
      repeat_rows(v[l].data() + first * layer.v_width, layer.v_width * static_cast<int64_t>(sizeof(float)), num_rows,
                  period, length);
    }
  }
  std::vector<std::vector<float>> k, v;  // by layer: [num_sequences, kept, width]
};

void round_to_q8_0(std::span<float> values) {
  constexpr size_t G = Q8_0::group_size;
  for (size_t first = 0; first < values.size(); first += G) {
    const std::span<float> group = values.subspan(first, std::min(G, values.size() - first));
    uint8_t codes[G], scale[Q8_0::group_scale_bytes];
    encode_q8_0_group(group, codes, scale);
    for (size_t i = 0; i < group.size(); i++) group[i] = Q8_0::decode(codes, scale, static_cast<int64_t>(i));
  }
}

class ReferenceStep final : public CompiledStep {
 public:
  ReferenceStep(const Step& step, std::span<const PackedWeight* const> weights)
      : step_(step), weights_(weights.begin(), weights.end()) {
    for (const StepBuffer& buffer : step_.buffers)
      buffers_.emplace_back(static_cast<size_t>(step_.num_rows(buffer.rows) * buffer.width));
  }

  void run(const StepInputs& inputs, KvCache& cache, std::span<float> logits) override {
    inputs_ = inputs;
    cache_ = &static_cast<ReferenceCache&>(cache);
    last_weight_bytes_ = 0;
    for (const Op& op : step_.ops) {
      std::visit([&](const auto& o) { execute(o); }, op);
      last_weight_bytes_ +=
          weight_bytes_read(op, step_.M, size(), std::visit([&](const auto& o) { return num_chosen(o); }, op));
    }
    const Matrix result = matrix(step_.logits);
    for (int64_t m = 0; m < result.rows; m++)
      std::copy_n(result.row(m), result.width, logits.data() + m * result.width);
  }

  int64_t weight_bytes() const override {
    int64_t bytes = 0;
    for (const Op& op : step_.ops) bytes += weight_bytes_read(op, step_.M, size());
    return bytes;
  }
  int64_t last_weight_bytes() const override { return last_weight_bytes_; }
  int64_t scratch_bytes() const override {
    size_t values = 0;
    for (const auto& buffer : buffers_) values += buffer.size();
    return static_cast<int64_t>(values * sizeof(float));
  }
  std::vector<Phase> phases() const override {
    std::vector<Phase> phases;
    for (const Op& op : step_.ops) phases.push_back({.name = std::string(op_name(op))});
    return phases;
  }
  void set_profiling(bool) override {}

 private:
  std::function<MatrixSize(WeightId)> size() const {
    return [this](WeightId id) {
      const PackedWeight& w = *weights_[static_cast<size_t>(id.index)];
      return MatrixSize{w.E, w.bytes};
    };
  }
  // How many experts the tokens chose, each counted once.
  template <class AnyOp>
  int64_t num_chosen(const AnyOp& op) {
    std::set<float> chosen;
    if constexpr (requires { op.experts; })
      for (const Matrix experts = matrix(op.experts); int64_t m : std::views::iota(int64_t{0}, experts.rows))
        chosen.insert(experts.row(m), experts.row(m) + experts.width);
    return static_cast<int64_t>(chosen.size());
  }

  Matrix matrix(const Slice& slice) {
    const auto b = static_cast<size_t>(slice.buffer);
    const StepBuffer& buffer = step_.buffers[b];
    return {buffers_[b].data() + slice.first, step_.num_rows(buffer.rows), slice.width, buffer.width};
  }
  const CanonicalWeight& weight(WeightId id) const {
    return static_cast<const ReferenceWeight*>(weights_[static_cast<size_t>(id.index)])->weight;
  }
  const float* vector(WeightId id) const {
    return id ? reinterpret_cast<const float*>(weight(id).codes.data()) : nullptr;
  }

  void execute(const EmbedOp& op) { reference::embed(inputs_.tokens, weight(op.w), matrix(op.out)); }
  void execute(const RmsNormOp& op) {
    reference::rms_norm(matrix(op.x), vector(op.weight), matrix(op.out), op.eps, op.num_heads);
  }
  void execute(const LinearOp& op) {
    reference::linear(matrix(op.x), weight(op.w), 0, vector(op.bias), matrix(op.out), op.accumulate);
  }
  void execute(const RopeOp& op) {
    reference::rope(matrix(op.x), inputs_.pos, step_.rotations[static_cast<size_t>(op.rotation)], op);
  }
  void execute(const KvAppendOp& op) {
    const auto l = static_cast<size_t>(op.layer);
    append(matrix(op.k), cache_->shape.layers[l], cache_->k[l]);
    if (op.v.width > 0) append(matrix(op.v), cache_->shape.layers[l], cache_->v[l]);
  }
  void append(Matrix rows, const KvLayer& layer, std::vector<float>& to) {
    const int64_t kept = cache_->shape.kept(layer), num_heads = layer.num_heads;
    for (int64_t m = 0; m < rows.rows; m++) {
      const auto i = static_cast<size_t>(m);
      float* row = to.data() + (inputs_.sequence[i] * kept + inputs_.pos[i] % kept) * rows.width;
      std::copy_n(rows.row(m), rows.width, row);
      if (cache_->shape.type == KvCacheType::f16)
        std::transform(row, row + rows.width, row, [](float x) { return half_to_float(float_to_half(x)); });
      if (cache_->shape.type == KvCacheType::q8_0)
        for (int64_t h = 0; h < num_heads; h++)
          round_to_q8_0({row + h * rows.width / num_heads, static_cast<size_t>(rows.width / num_heads)});
    }
  }
  // What the sequence of token m has cached in a layer, up to the token itself.
  reference::KvRows kv_rows(int layer, int64_t m) const {
    const auto l = static_cast<size_t>(layer), i = static_cast<size_t>(m);
    const KvLayer& widths = cache_->shape.layers[l];
    const int64_t kept = cache_->shape.kept(widths), first = inputs_.sequence[i] * kept;
    return {.k = cache_->k[l].data() + first * widths.k_width,
            .v = cache_->v[l].data() + first * widths.v_width,
            .k_stride = widths.k_width,
            .v_stride = widths.v_width,
            .num_rows = kept,
            .len = inputs_.pos[i] + 1};
  }
  void execute(const AttentionOp& op) {
    for (int64_t m = 0; m < step_.M; m++)
      reference::attention(matrix(op.q).row(m), kv_rows(op.layer, m), op, vector(op.sinks), matrix(op.out).row(m));
  }
  void execute(const HeadLinearOp& op) { reference::head_linear(matrix(op.x), weight(op.w), matrix(op.out)); }
  void execute(const LatentAttentionOp& op) {
    for (int64_t m = 0; m < step_.M; m++)
      reference::latent_attention(matrix(op.q_latent).row(m), matrix(op.q).row(m), kv_rows(op.layer, m), op,
                                  matrix(op.out).row(m));
  }
  void execute(const SwigluOp& op) { reference::swiglu(matrix(op.gate), matrix(op.up), matrix(op.out)); }
  void execute(const RouteOp& op) {
    reference::route(matrix(op.logits), vector(op.correction_bias), op, matrix(op.experts), matrix(op.expert_weights));
  }
  void execute(const MoeGateUpOp& op) {
    reference::moe_gate_up(matrix(op.x), weight(op.gate), weight(op.up), vector(op.gate_bias), vector(op.up_bias),
                           matrix(op.experts), op, matrix(op.out));
  }
  void execute(const MoeDownOp& op) {
    reference::moe_down(matrix(op.x), weight(op.down), vector(op.bias), matrix(op.experts), matrix(op.expert_weights),
                        matrix(op.out));
  }
  void execute(const SelectLogitsOp& op) {
    const Matrix x = matrix(op.x), out = matrix(op.out);
    for (int64_t m = 0; m < out.rows; m++) std::copy_n(x.row(x.rows - out.rows + m), out.width, out.row(m));
  }

  Step step_;
  std::vector<const PackedWeight*> weights_;
  std::vector<std::vector<float>> buffers_;
  StepInputs inputs_;
  ReferenceCache* cache_ = nullptr;
  int64_t last_weight_bytes_ = 0;
};

class ReferenceBackend final : public Backend {
 public:
  std::string_view name() const override { return "reference"; }
  std::string description() const override { return "plain loops, double sums, 1 thread"; }
  std::span<const KvCacheType> kv_cache_types() const override { return kKvCacheTypes; }

  PackPlan plan_pack(FormatId format, int64_t E, int64_t N, int64_t K) const override {
    return {format, "as in the file", "plain loops", E * (N * code_bytes(format, K) + scale_bytes(format, N, K))};
  }

  std::unique_ptr<PackedWeight> pack(const CanonicalWeight& weight) override {
    auto packed = std::make_unique<ReferenceWeight>();
    packed->format = weight.format;
    packed->E = weight.E;
    packed->N = weight.N;
    packed->K = weight.K;
    packed->bytes = static_cast<int64_t>(weight.codes.size() + weight.scales.size());
    packed->weight = weight;  // shares the bytes, which may lie in a mapped file
    check_floats(packed->weight);
    return packed;
  }

  std::unique_ptr<PackedWeight> pack_vector(std::span<const float> values) override {
    auto storage = std::make_shared<std::vector<float>>(values.begin(), values.end());
    return pack({.format = FormatId::f32,
                 .E = 1,
                 .N = 1,
                 .K = static_cast<int64_t>(values.size()),
                 .codes = {reinterpret_cast<const uint8_t*>(storage->data()), values.size_bytes()},
                 .scales = {},
                 .parts = {{0, {1.0f}}},
                 .storage = storage});
  }

  std::unique_ptr<KvCache> make_kv_cache(const KvCacheShape& shape) override {
    return std::make_unique<ReferenceCache>(shape);
  }

  std::unique_ptr<CompiledStep> compile(const Step& step, std::span<const PackedWeight* const> weights,
                                        const KvCacheShape&) override {
    return std::make_unique<ReferenceStep>(step, weights);
  }

#ifdef NIBBLE_SANITIZED  // its reads are no measure of memory
  int64_t roof_bytes() const override { return int64_t{1} << 20; }
#else
  int64_t roof_bytes() const override { return int64_t{64} << 20; }  // which are filled in 0.02 s
#endif
  double measure_read_gbps() override {
    const Buffer buffer(static_cast<size_t>(roof_bytes()));  // in huge pages, which are there sooner
    const std::span<uint64_t> data(buffer.as<uint64_t>(), buffer.size() / sizeof(uint64_t));
    std::ranges::fill(data, 1);
    const auto start = std::chrono::steady_clock::now();
    uint64_t sum = 0;
    for (uint64_t value : data) sum += value;
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    return static_cast<double>(sum * sizeof(uint64_t)) / elapsed.count() / 1e9;
  }
};

}  // namespace

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace nibble
