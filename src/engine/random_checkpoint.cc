#include "engine/random_checkpoint.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "checkpoint/output_file.h"
#include "engine/quantize_files.h"
#include "weights/importer_core.h"

namespace nibble {

namespace {

std::span<const uint8_t> as_bytes(std::span<const float> values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes()};
}

class Writer {
 public:
  Writer(const ModelFiles& files, const RandomCheckpointOptions& options) : files_(files), options_(options) {}

  int64_t write(const std::filesystem::path& folder) {
    const std::vector<TensorSpec> specs = all_specs();
    for (const TensorSpec& spec : specs) all_bytes_ += tensor_bytes(spec.dtype, spec.shape, spec.name);
    SafetensorsWriter writer(folder, specs, options_.max_shard_bytes);
    for (const WeightEntry& entry : entries()) {
      if (const auto* matrix = std::get_if<MatrixEntry>(&entry.what)) {
        write_matrix(writer, *matrix);
      } else {
        write_vector(writer, std::get<VectorRequest>(entry.what));
      }
      if (options_.progress) options_.progress(done_bytes_, all_bytes_);
    }
    writer.finish();
    return all_bytes_;
  }

  std::vector<std::string> kept_modules() const {
    std::vector<std::string> names;
    for (const WeightEntry& entry : entries())
      if (const auto* matrix = std::get_if<MatrixEntry>(&entry.what);
          matrix && !is_fp4(*matrix) && !is_written_before(*matrix))
        for (int64_t e = 0; e < num_modules(*matrix); e++) names.push_back(numbered(matrix->request.name.hf, e));
    return names;
  }

 private:
  std::span<const WeightEntry> entries() const { return files_.model->weights.entries(); }
  bool is_fp4(const MatrixEntry& m) const { return m.info.format == options_.format; }
  static bool is_slice(const MatrixEntry& m) { return m.request.hf_heads.head_rows > 0; }
  // The slices of one matrix stand one after the other; the first, which is transposed, writes both.
  static bool is_written_before(const MatrixEntry& m) { return is_slice(m) && !m.request.hf_heads.transposed; }
  static int64_t num_modules(const MatrixEntry& m) { return is_slice(m) ? 1 : m.info.E; }

  const MatrixEntry& other_slice(const MatrixEntry& m) const {
    for (const WeightEntry& entry : entries())
      if (const auto* other = std::get_if<MatrixEntry>(&entry.what);
          other && other != &m && other->request.name.hf == m.request.name.hf)
        return *other;
    throw_input_error("{}: has no second slice", m.request.name.hf);
  }

  std::vector<TensorSpec> all_specs() const {
    std::vector<TensorSpec> specs;
    for (const WeightEntry& entry : entries()) {
      if (const auto* vector = std::get_if<VectorRequest>(&entry.what)) {
        for (int64_t e = 0; e < vector->E; e++)
          specs.push_back({numbered(vector->name.hf, e), DType::f32, {vector->size}});
        continue;
      }
      const auto& m = std::get<MatrixEntry>(entry.what);
      if (is_written_before(m)) continue;
      for (int64_t e = 0; e < num_modules(m); e++) {
        const std::string name = numbered(m.request.name.hf, e);
        if (is_slice(m)) {
          specs.push_back({name + ".weight", DType::bf16, {m.info.E * m.request.hf_heads.head_rows, m.info.N}});
        } else if (is_fp4(m)) {
          for (TensorSpec& spec : fp4_specs(name, m.info.format, m.info.N, m.info.K)) specs.push_back(std::move(spec));
        } else {
          specs.push_back({name + ".weight", DType::bf16, {m.info.N, m.info.K}});
        }
      }
    }
    return specs;
  }

  void append(SafetensorsWriter& writer, const std::string& name, std::span<const uint8_t> bytes) {
    writer.append(name, bytes);
    done_bytes_ += static_cast<int64_t>(bytes.size());
  }

  void write_matrix(SafetensorsWriter& writer, const MatrixEntry& m) {
    if (is_written_before(m)) return;
    const CanonicalWeight w = files_.source->read(m.request);
    if (is_slice(m)) {
      append(writer, m.request.name.hf + ".weight", joined(w, files_.source->read(other_slice(m).request)));
      return;
    }
    const size_t codes = w.codes.size() / static_cast<size_t>(w.E), scales = w.scales.size() / static_cast<size_t>(w.E);
    for (int64_t e = 0; e < w.E; e++) {
      const auto i = static_cast<size_t>(e);
      const std::string name = numbered(m.request.name.hf, e);
      if (is_fp4(m)) {
        append_fp4(writer, name, w.format, w.codes.subspan(i * codes, codes), w.scales.subspan(i * scales, scales),
                   w.parts.front().tensor_scale[i]);
        done_bytes_ += static_cast<int64_t>(codes + scales);
      } else {
        append(writer, name + ".weight", w.codes.subspan(i * codes, codes));
      }
    }
  }

  // Of each head first the rows that keys are made of, whose transposition the model asks for, then those of the values.
  static std::vector<uint8_t> joined(const CanonicalWeight& keys, const CanonicalWeight& values) {
    constexpr int64_t kSize = 2;  // bytes of a bfloat16
    const int64_t latent = keys.N, nope = keys.K;
    std::vector<uint8_t> bytes(keys.codes.size() + values.codes.size());
    uint8_t* to = bytes.data();
    for (int64_t e = 0; e < keys.E; e++) {
      for (int64_t n = 0; n < nope; n++)
        for (int64_t k = 0; k < latent; k++, to += kSize)
          std::memcpy(to, keys.codes.data() + ((e * latent + k) * nope + n) * kSize, kSize);
      to = std::copy_n(values.codes.data() + e * values.N * latent * kSize, values.N * latent * kSize, to);
    }
    return bytes;
  }

  void write_vector(SafetensorsWriter& writer, const VectorRequest& request) {
    const std::vector<float> values = files_.source->read_vector(request);
    const auto size = static_cast<size_t>(request.size);
    for (int64_t e = 0; e < request.E; e++)
      append(writer, numbered(request.name.hf, e),
             as_bytes(std::span(values).subspan(static_cast<size_t>(e) * size, size)));
  }

  const ModelFiles& files_;
  const RandomCheckpointOptions& options_;
  int64_t done_bytes_ = 0, all_bytes_ = 0;
};

}  // namespace

std::function<FormatId(const MatrixRequest&)> published_formats(FormatId fp4) {
  return [fp4](const MatrixRequest& r) {
    const bool is_plain = r.hf_heads.head_rows > 0 || r.name.gguf == "token_embd" || r.name.gguf == "output" ||
                          r.name.gguf.ends_with("ffn_gate_inp") || r.K % group_size(fp4) != 0;
    return is_plain ? FormatId::bf16 : fp4;
  };
}

int64_t write_random_checkpoint(const Checkpoint& shape, const std::filesystem::path& to,
                                const RandomCheckpointOptions& options) {
  if (options.format != FormatId::nvfp4 && options.format != FormatId::mxfp4)
    throw_input_error("random checkpoints are written in NVFP4 or MXFP4, not in {}", format_name(options.format));
  if (std::filesystem::exists(to / "config.json"))
    throw_input_error("{}: already holds a model; choose another folder or remove it first", to.string());
  const ModelFiles files = random_model(shape, published_formats(options.format));
  Writer writer(files, options);
  const nlohmann::ordered_json config = quantized_config(files, options.format, writer.kept_modules());
  const int64_t bytes = writer.write(to);
  write_file(to / "config.json", config.dump(2) + "\n");
  return bytes;
}

}  // namespace nibble
