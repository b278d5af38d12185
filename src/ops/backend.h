// A backend: something that packs weights, keeps caches and runs steps. Models and backends meet here and nowhere else.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ops/packed_weight.h"
#include "ops/step.h"
#include "ops/token_choice.h"
#include "weights/weight.h"

namespace nibble {

// How cached keys and values are kept. Of q8_0 (formats/q8_0.h) each piece that is read apart (KvLayer::num_heads) begins
// a group of 32, and the last group of a piece is filled up.
enum class KvCacheType : uint8_t { f32, f16, q8_0 };
inline constexpr std::array kKvCacheTypes = {KvCacheType::f32, KvCacheType::f16, KvCacheType::q8_0};

std::string_view kv_cache_type_name(KvCacheType type);

// Values that one token leaves in one layer's cache.
struct KvLayer {
  int64_t k_width, v_width;
  int64_t window = 0;     // positions that a token reads, its own among them; 0: all
  int64_t num_heads = 1;  // equal pieces of k and of v that are read apart

  int64_t bytes(KvCacheType type) const;  // that they take
};

// Bytes that a piece of `width` values takes.
int64_t kv_cache_row_bytes(KvCacheType type, int64_t width);

// A layer with a window keeps the last window + spare positions of each sequence, in a ring; the others keep all.
struct KvCacheShape {
  std::vector<KvLayer> layers;
  int64_t num_sequences = 1;
  int64_t max_len = 0;  // positions of each sequence
  KvCacheType type = KvCacheType::f16;
  int64_t spare = 1024;  // one step may add spare + 1 tokens of a sequence; and see can_resume

  // Positions of each sequence that the layer keeps: position p is in row p % kept(layer).
  int64_t kept(const KvLayer& layer) const {
    return layer.window > 0 ? std::min(layer.window + spare, max_len) : max_len;
  }
  // Whether a sequence that has had up to `longest` positions since it was empty can go on from its first `length`: all
  // that the next token will read must still be there. So it is for length 0 and for longest - spare <= length.
  bool can_resume(int64_t longest, int64_t length) const {
    return length == 0 || std::ranges::all_of(layers, [&](const KvLayer& layer) {
             return layer.window == 0 || longest - kept(layer) <= std::max<int64_t>(length - layer.window + 1, 0);
           });
  }

  int64_t bytes() const {  // of the whole cache
    int64_t sum = 0;
    for (const KvLayer& layer : layers) sum += layer.bytes(type) * kept(layer);
    return num_sequences * sum;
  }
  int64_t bytes_per_token() const {  // of one sequence, in all layers
    int64_t sum = 0;
    for (const KvLayer& layer : layers) sum += layer.bytes(type);
    return sum;
  }
  int64_t bytes_read(int64_t len) const {  // by a step over `len` positions of one sequence
    int64_t sum = 0;
    for (const KvLayer& layer : layers)
      sum += layer.bytes(type) * (layer.window > 0 ? std::min(layer.window, len) : len);
    return sum;
  }
};

class KvCache {
 public:
  virtual ~KvCache() = default;
  const KvCacheShape shape;

  // Positions `period` … length - 1 of a sequence become copies of its positions 0 … period - 1, over and over: a long
  // context at the price of a copy, for a measurement. 1 <= period <= kept(layer) of every layer, length <= max_len.
  virtual void repeat(int64_t sequence, int64_t period, int64_t length) = 0;

 protected:
  explicit KvCache(KvCacheShape s) : shape(std::move(s)) {}

  // The same for a ring of rows, position p in row p % num_rows. Rows may be empty.
  static void repeat_rows(void* rows, int64_t row_bytes, int64_t num_rows, int64_t period, int64_t length) {
    if (row_bytes == 0) return;
    auto* bytes = static_cast<char*>(rows);
    for (int64_t p = period; p < length; p++)
      std::memmove(bytes + p % num_rows * row_bytes, bytes + (p - period) % num_rows * row_bytes,
                   static_cast<size_t>(row_bytes));
  }
};

// One value for each of the step's M tokens. Tokens of one sequence come in the order of their positions, and all
// earlier positions of that sequence are in the cache or in this step.
struct StepInputs {
  std::span<const int32_t> tokens;    // ids, below the vocabulary's size
  std::span<const int32_t> pos;       // position in its sequence, below the cache's max_len
  std::span<const int32_t> sequence;  // which cache, below the cache's num_sequences
};

// A part of a step between two synchronisations, as `plan` and `bench` print it.
struct Phase {
  std::string name;          // "rms_norm + q + k + v"
  int64_t weight_bytes = 0;  // read from memory each time; of experts those that are chosen, as if each once
  // Since profiling was switched on:
  double seconds = 0;       // spent in it
  int64_t read_bytes = 0;   // of weights, of experts those that were chosen
  int64_t cache_bytes = 0;  // of the KV cache, by each token; not known of Metal
};

// A phase as it is known before any weight is read.
struct PlannedPhase {
  std::string name, kernel;        // "rms_norm + 3 linears", "linear_mxfp4"
  int64_t weight_bytes = 0;        // as Phase's
  std::vector<WeightId> matrices;  // that it reads
};

// Which kernels some numbers of tokens take, and why, as `plan` prints it.
struct PlannedRoute {
  std::string what, tokens, kernels, reason;  // "linear", "2 to 32", "linear_block", "…"; `what` is empty if as before
};

// What a weight will be: a matrix in the file's format, or a vector of N values in each of E experts.
struct WeightShape {
  FormatId format;
  int64_t E, N, K;
  bool is_vector;
};

class CompiledStep {
 public:
  virtual ~CompiledStep() = default;

  // Runs the step. Writes the logits, [rows, vocabulary], and the cache. Allocates nothing and throws nothing.
  virtual void run(const StepInputs& inputs, KvCache& cache, std::span<float> logits) = 0;

  // Optional, for a step of one token, or of a token of each of M sequences with the logits of all: up to max_ahead() runs (0:
  // it has none of this) without the host between them. The first is that of `inputs`; in each other one a sequence has its
  // next position, and the token chosen from its logits of the one before. draws[i * M + m], in [0, 1), is the random number
  // of choice i of token m, which is written to tokens[i * M + m]; both have M elements for each run.
  //
  // Returns of how many runs, the first ones, all tokens are what the host's Sampler takes of the same logits and numbers.
  // That is fewer than all where rounding could make a difference, and none where the backend knows no such choice: what
  // comes after is no result, and what the cache has of those positions is to be written again.
  virtual int64_t max_ahead() const { return 0; }
  virtual int64_t run_ahead(const StepInputs& /*inputs*/, KvCache&, const TokenChoice&,
                            std::span<const double> /*draws*/, std::span<int32_t> /*tokens*/) {
    return 0;
  }

  // Bytes of packed weights that one run reads, as if no two tokens chose the same expert; and that the last run did
  // read, an expert once for all tokens that chose it. And of the buffers that it keeps.
  virtual int64_t weight_bytes() const = 0;
  virtual int64_t last_weight_bytes() const = 0;
  virtual int64_t scratch_bytes() const = 0;

  // The phases in their order; profiling costs a clock reading for each.
  virtual std::vector<Phase> phases() const = 0;
  virtual void set_profiling(bool on) = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string_view name() const = 0;                        // "cpu"
  virtual std::string description() const = 0;                      // "avx512, 2 threads"
  virtual std::span<const KvCacheType> kv_cache_types() const = 0;  // that it has, the default first

  // What pack would make of such a matrix. Throws InputError if there is no kernel for it.
  virtual PackPlan plan_pack(FormatId format, int64_t E, int64_t N, int64_t K) const = 0;

  // The phases that compile would make of a step; `weights` by WeightId. Throws InputError where compile would. Empty if the
  // backend tells only of compiled steps.
  virtual std::vector<PlannedPhase> plan_phases(const Step&, std::span<const WeightShape> /*weights*/,
                                                const KvCacheShape&) const {
    return {};
  }

  // The routes by the number of tokens, of the engine's matrices and of dispatch_gemm_fp4, where they are other ones than the
  // CPU's. Empty if they are the same.
  virtual std::vector<PlannedRoute> routes() const { return {}; }

  // CompiledStep::scratch_bytes of a step that compile would make.
  virtual int64_t plan_scratch_bytes(const Step& step, std::span<const WeightShape> /*weights*/,
                                     const KvCacheShape&) const {
    return step.buffer_bytes();
  }

  // Throws NotFinite if the weight has floats that nobody has checked and that are not finite (check_floats).
  virtual std::unique_ptr<PackedWeight> pack(const CanonicalWeight& weight) = 0;
  virtual std::unique_ptr<PackedWeight> pack_vector(std::span<const float> values) = 0;

  // A name for what pack makes of a matrix, to the byte: packed_bytes of another process in which the name is the same
  // can be adopted. Empty: this backend's weights cannot be kept.
  virtual std::string packed_layout() const { return {}; }
  // What pack made of a matrix of this format and shape, from its packed_bytes: as many as plan_pack says, from a line of 64
  // bytes on, and 64 more that can be read. Null if there is no packed_layout.
  virtual std::unique_ptr<PackedWeight> adopt(FormatId /*format*/, int64_t /*E*/, int64_t /*N*/, int64_t /*K*/,
                                              const std::shared_ptr<const uint8_t>& /*bytes*/) {
    return nullptr;
  }
  virtual std::unique_ptr<KvCache> make_kv_cache(const KvCacheShape& shape) = 0;
  // Bytes of that cache: the shape's, and what this backend's layout fills up.
  virtual int64_t kv_cache_bytes(const KvCacheShape& shape) const { return shape.bytes(); }

  // `weights` by WeightId; they outlive the compiled step, which runs on caches of the given shape.
  virtual std::unique_ptr<CompiledStep> compile(const Step& step, std::span<const PackedWeight* const> weights,
                                                const KvCacheShape& cache_shape) = 0;

  // GB/s at which this backend's device reads memory, measured now: the roof of every decode step.
  virtual double measure_read_gbps() = 0;
  // Memory that measuring takes, from the first time on.
  virtual int64_t roof_bytes() const = 0;
};

// The type that was asked for, or else the backend's default. Throws InputError if the backend does not have it.
KvCacheType choose_kv_cache_type(const Backend& backend, std::optional<KvCacheType> wanted);

}  // namespace nibble
