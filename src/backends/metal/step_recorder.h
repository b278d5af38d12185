// Records the dispatches of a fused step, one after the other: what every kind of them is made of, and where barriers
// stand. The kinds themselves are in record_matrices.cc, record_attention.cc and record_step.cc.
#pragma once

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "backends/metal/metal_fuse.h"
#include "backends/metal/metal_matrix.h"
#include "backends/metal/record_step.h"

namespace nibble {

class StepRecorder {
 public:
  StepRecorder(const Step& step, std::span<const PackedWeight* const> weights, const KvCacheShape& cache_shape,
               MetalDevice& device, MetalKernels& kernels, MetalScratch& scratch)
      : step_(step),
        weights_(weights),
        cache_shape_(cache_shape),
        device_(device),
        kernels_(kernels),
        scratch_(scratch) {}

  RecordedStep record_all();

 private:
  using Dispatch = metal_fusion::Dispatch;
  struct Kernel {
    std::string name;
    FunctionConstants constants = {};
  };

  // ---- matrices: record_matrices.cc ----

  void record(const metal_fusion::Linears& group, const Dispatch& what);
  void record(const metal_fusion::DenseGateUp& pair, const Dispatch& what);
  void record(const HeadLinearOp& op, const Dispatch& what);
  void record(const metal_fusion::ExpertGateUp& part, const Dispatch& what);
  void record(const MoeDownOp& op, const Dispatch& what);
  // A buffer for the experts that a dispatch uses, of which `bytes_of_one` are read each.
  MetalBinding bind_used(int64_t count, int64_t bytes_of_one);
  // The next dispatch uses those experts.
  void note_used(const MetalBuffer* experts, int64_t count, int64_t bytes_of_one);
  int64_t bytes_of_expert(const metal_fusion::ExpertGateUp& part) const;
  // How M tokens go through a matrix: the end of a kernel's stem, and what its threadgroups are.
  struct MatrixRoute {
    std::string_view suffix;
    int64_t rows, tokens;  // of a threadgroup
    uint32_t threads;
  };
  static MatrixRoute route_of(int64_t M);
  static MatrixRoute route_of_pairs(int64_t num_pairs, int64_t num_experts);
  void record_pairs(const metal_fusion::ExpertGateUp& part, const GateUpArguments& a, Kernel kernel,
                    const Dispatch& what);
  void record_pairs(const MoeDownOp& op, const MoeDownArguments& a, Kernel kernel, const Dispatch& what);
  // The pairs of a token and an expert, sorted by expert and cut into pieces; a dispatch that does it comes first if the
  // last ones were others.
  struct SortedPairs {
    Slice experts;
    int64_t piece, most_pieces;
    MetalBinding pairs, pieces;
    const MetalBuffer* used;
  };
  const SortedPairs& sort_pairs(const Slice& experts, int64_t num_experts, int64_t piece, const Dispatch& what);

  // ---- heads and the cache: record_attention.cc ----

  void record(const metal_fusion::Heads& heads, const Dispatch& what);
  void record(const KvAppendOp& op, const Dispatch& what);
  void record(const AttentionOp& op, const Dispatch& what);
  void record(const LatentAttentionOp& op, const Dispatch& what);
  struct AttentionOperands {
    Slice q;
    std::optional<Slice> q_rope;  // of latents
    WeightId sinks;
    Slice out;
  };
  // What both kinds of attention have in common: the cache, and how threadgroups share the positions.
  void add_attention(const Dispatch& what, Kernel kernel, AttentionArguments a, int layer, const AttentionOperands& of);
  struct AttentionKernel {
    std::string name;
    uint32_t num_simdgroups, num_queries;  // of a threadgroup
    bool may_split = true;                 // threadgroups may share the positions
  };
  // For heads of `dim` values, of which `num_queries` read the same keys; on simdgroup matrices if it has such for them.
  AttentionKernel attention_kernel(int64_t dim, int64_t num_queries, bool tiles) const;

  // ---- the others: record_step.cc ----

  void record(const EmbedOp& op, const Dispatch& what);
  void record(const RmsNormOp& op, const Dispatch& what);
  void record(const RopeOp& op, const Dispatch& what);
  void record(const SwigluOp& op, const Dispatch& what);
  void record(const RouteOp& op, const Dispatch& what);
  void record(const SelectLogitsOp& op, const Dispatch& what);

  // ---- what dispatches are made of ----

  static uint32_t u32(int64_t value) { return static_cast<uint32_t>(value); }
  static int64_t divide_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit; }

  const MetalMatrix& matrix(WeightId id) const {
    return static_cast<const MetalMatrix&>(*weights_[static_cast<size_t>(id.index)]);
  }
  std::string kernel_name(std::string_view stem, WeightId id) const {
    return fmt::format("{}_{}", stem, metal_format_name(matrix(id).format));
  }
  std::string cached_kernel_name(std::string_view stem) const {
    return fmt::format("{}_{}", stem, kv_cache_type_name(cache_shape_.type));
  }
  int64_t rows(const Slice& slice) const {
    return step_.num_rows(step_.buffers[static_cast<size_t>(slice.buffer)].rows);
  }
  uint32_t stride(const Slice& slice) const { return u32(scratch_.strides[static_cast<size_t>(slice.buffer)]); }
  static bool is_aligned(const Slice& slice) { return slice.first % 4 == 0; }

  MetalBinding bind(const Slice& slice) const {
    return {scratch_.buffers[static_cast<size_t>(slice.buffer)].get(),
            static_cast<size_t>(slice.first) * sizeof(float)};
  }
  MetalBinding bind(WeightId matrix_or_none) const {
    return {matrix_or_none ? matrix(matrix_or_none).buffer.get() : scratch_.nothing.get(), 0};
  }
  MetalBinding bind_vector(WeightId id) const {
    return {id ? static_cast<const MetalVector&>(*weights_[static_cast<size_t>(id.index)]).buffer.get()
               : scratch_.nothing.get(),
            0};
  }
  MetalBinding bind_nothing() const { return {scratch_.nothing.get(), 0}; }
  MetalBinding bind_pos() const { return {scratch_.pos.get(), 0}; }
  MetalBinding bind_sequence() const { return {scratch_.sequence.get(), 0}; }
  MetalBinding bind_turns(int rotation) const { return {scratch_.turns[static_cast<size_t>(rotation)].get(), 0}; }
  // Filled in by run.
  void bind_cache(RecordedDispatch& d, int layer, bool is_k) const {
    d.planes.push_back({d.buffers.size(), static_cast<size_t>(layer), is_k});
    d.buffers.emplace_back();
  }
  const KvLayer& kv_layer(int layer) const { return cache_shape_.layers[static_cast<size_t>(layer)]; }
  uint32_t num_rows(int layer) const { return u32(cache_shape_.kept(kv_layer(layer))); }
  // At least so many bytes; what it held belongs to dispatches that were recorded before.
  MetalBinding bind_shared(SharedBuffer which, int64_t bytes);

  // The cache of a layer counts as a buffer behind those of the step, and shared buffers behind those.
  Slice cache_slice(int layer) const { return {static_cast<int>(step_.buffers.size()) + layer, 0, 1}; }
  Slice shared_slice(SharedBuffer which) const {
    return {static_cast<int>(step_.buffers.size() + cache_shape_.layers.size()) + which, 0, 1};
  }

  template <class Arguments>
  RecordedDispatch make(const Dispatch& what, const Kernel& kernel, const Arguments& arguments) {
    RecordedDispatch d;
    d.kernel = &kernels_.get(kernel.name, kernel.constants);
    d.plan = {
        .name = metal_fusion::dispatch_name(what), .kernel = kernel.name, .matrices = metal_fusion::matrices_of(what)};
    d.info.name = fmt::format("{} ({})", d.plan.name, d.plan.kernel);
    const auto* bytes = reinterpret_cast<const uint8_t*>(&arguments);
    d.arguments.assign(bytes, bytes + sizeof arguments);
    return d;
  }

  // `slices` say what it reads and writes: a barrier comes before it if it needs the result of one that may still run, or
  // would overwrite what one reads.
  void add(RecordedDispatch d, const OpSlices& slices, MetalSize threadgroups, uint32_t threads);
  // The same with a thread for each of `width` values.
  void add_elementwise(RecordedDispatch d, const OpSlices& slices, int64_t width, int64_t y, int64_t z = 1) {
    add(std::move(d), slices, {u32(divide_up(width, kThreads)), u32(y), u32(z)}, kThreads);
  }

  const Step& step_;
  std::span<const PackedWeight* const> weights_;
  const KvCacheShape& cache_shape_;
  MetalDevice& device_;
  MetalKernels& kernels_;
  MetalScratch& scratch_;
  RecordedStep recorded_;
  OpSlices running_;                   // what has been read and written since the last barrier
  std::optional<SortedPairs> sorted_;  // what the shared buffers have
};

}  // namespace nibble
