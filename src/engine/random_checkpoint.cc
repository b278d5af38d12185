#include "engine/random_checkpoint.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "base/error.h"
#include "base/read_file.h"
#include "checkpoint/output_file.h"
#include "engine/quantize_files.h"
#include "weights/importer_core.h"

namespace nibble {

namespace {

std::span<const uint8_t> as_bytes(std::span<const float> values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes()};
}

// A module of the files: a weight, or one expert of it.
struct Piece {
  const WeightEntry* entry;
  int64_t e;

  std::string name() const { return numbered(entry->name(), e); }
  const MatrixEntry* matrix() const { return std::get_if<MatrixEntry>(&entry->what); }
};

bool is_slice(const MatrixEntry& m) { return m.request.heads.head_rows > 0; }

// In the order of published files: all of one expert, then all of the next. Slices of one matrix stand one after the
// other; the first, which is transposed, is written with the second.
std::vector<Piece> pieces_of(std::span<const WeightEntry> entries) {
  const auto is_of_experts = [](const WeightEntry& entry) { return entry.name().find('*') != std::string::npos; };
  std::vector<Piece> pieces;
  for (auto at = entries.begin(); at != entries.end();) {
    const auto* m = std::get_if<MatrixEntry>(&at->what);
    if (!is_of_experts(*at)) {
      if (m == nullptr || !is_slice(*m) || m->request.heads.transposed) pieces.push_back({&*at, 0});
      ++at;
      continue;
    }
    const auto end = std::find_if_not(at, entries.end(), is_of_experts);
    for (int64_t e = 0; e < std::get<MatrixEntry>(at->what).info.E; e++)
      for (auto entry = at; entry != end; ++entry) pieces.push_back({&*entry, e});
    at = end;
  }
  return pieces;
}

class Writer {
 public:
  Writer(const ModelFiles& files, const RandomCheckpointOptions& options)
      : files_(files), options_(options), pieces_(pieces_of(files.model->weights.entries())) {}

  int64_t write(const std::filesystem::path& folder) {
    std::vector<TensorSpec> specs;
    for (const Piece& piece : pieces_)
      for (TensorSpec& spec : specs_of(piece)) specs.push_back(std::move(spec));
    for (const TensorSpec& spec : specs) all_bytes_ += tensor_bytes(spec.dtype, spec.shape, spec.name);
    SafetensorsWriter writer(folder, std::move(specs), options_.max_shard_bytes);
    for (const Piece& piece : pieces_) {
      if (piece.matrix() != nullptr) {
        write_matrix(writer, piece, *piece.matrix());
      } else {
        write_vector(writer, piece, std::get<VectorRequest>(piece.entry->what));
      }
      if (options_.progress) options_.progress(done_bytes_, all_bytes_);
    }
    writer.finish();
    return all_bytes_;
  }

  std::vector<std::string> kept_modules() const {
    std::vector<std::string> names;
    for (const Piece& piece : pieces_)
      if (const auto* m = piece.matrix(); m != nullptr && !is_fp4(*m)) names.push_back(piece.name());
    return names;
  }

 private:
  bool is_fp4(const MatrixEntry& m) const { return m.info.format == options_.format; }

  std::vector<TensorSpec> specs_of(const Piece& piece) const {
    const std::string name = piece.name();
    if (piece.matrix() == nullptr) return {{name, DType::f32, {std::get<VectorRequest>(piece.entry->what).size}}};
    const MatrixInfo& info = piece.matrix()->info;
    if (is_slice(*piece.matrix()))
      return {{name + ".weight", DType::bf16, {info.E * piece.matrix()->request.heads.head_rows, info.N}}};
    if (is_fp4(*piece.matrix())) return fp4_specs(name, info.format, info.N, info.K);
    return {{name + ".weight", DType::bf16, {info.N, info.K}}};
  }

  void append(SafetensorsWriter& writer, const std::string& name, std::span<const uint8_t> bytes) {
    writer.append(name, bytes);
    done_bytes_ += static_cast<int64_t>(bytes.size());
  }

  void write_matrix(SafetensorsWriter& writer, const Piece& piece, const MatrixEntry& m) {
    if (piece.e == 0) read_[piece.entry] = files_.source->read(m.request);
    const CanonicalWeight& w = read_.at(piece.entry);
    if (is_slice(m)) {
      const auto& second = std::get<MatrixEntry>((piece.entry + 1)->what);
      append(writer, piece.name() + ".weight", joined(w, files_.source->read(second.request)));
    } else {
      const auto i = static_cast<size_t>(piece.e), E = static_cast<size_t>(w.E);
      const size_t code_bytes = w.codes.size() / E, scale_bytes = w.scales.size() / E;
      const auto codes = w.codes.subspan(i * code_bytes, code_bytes);
      if (is_fp4(m)) {
        append_fp4(writer, piece.name(), w.format, codes, w.scales.subspan(i * scale_bytes, scale_bytes),
                   w.parts.front().tensor_scale[i]);
        done_bytes_ +=
            static_cast<int64_t>(code_bytes + scale_bytes + (has_tensor_scale(w.format) ? sizeof(float) : 0));
      } else {
        append(writer, piece.name() + ".weight", codes);
      }
    }
    if (is_slice(m) || piece.e + 1 == w.E) read_.erase(piece.entry);
  }

  // Of each head first the rows for keys, whose transposition the model asks for, then those for values.
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

  void write_vector(SafetensorsWriter& writer, const Piece& piece, const VectorRequest& request) {
    const std::vector<float> values = files_.source->read_vector(request);
    const auto size = static_cast<size_t>(request.size);
    append(writer, piece.name(), as_bytes(std::span(values).subspan(static_cast<size_t>(piece.e) * size, size)));
  }

  const ModelFiles& files_;
  const RandomCheckpointOptions& options_;
  const std::vector<Piece> pieces_;
  std::map<const WeightEntry*, CanonicalWeight> read_;  // of whose experts some are still to be written
  int64_t done_bytes_ = 0, all_bytes_ = 0;
};

}  // namespace

std::function<FormatId(const MatrixRequest&)> published_formats(FormatId fp4) {
  return [fp4](const MatrixRequest& r) {
    const bool is_plain = r.heads.head_rows > 0 || r.name.gguf == "token_embd" || r.name.gguf == "output" ||
                          r.name.gguf.ends_with("ffn_gate_inp") || r.K % group_size(fp4) != 0;
    return is_plain ? FormatId::bf16 : fp4;
  };
}

int64_t write_random_checkpoint(const Checkpoint& shape, const std::filesystem::path& to,
                                const RandomCheckpointOptions& options) {
  if (options.format != FormatId::nvfp4 && options.format != FormatId::mxfp4)
    throw_input_error("random checkpoints are written in NVFP4 or MXFP4, not in {}", format_name(options.format));
  if (is_there(to / "config.json"))
    throw_input_error("{}: already holds a model; choose another folder or remove it first", to.string());
  const ModelFiles files = random_model(shape, published_formats(options.format));
  Writer writer(files, options);
  const nlohmann::ordered_json config = quantized_config(files, options.format, writer.kept_modules());
  const int64_t bytes = writer.write(to);
  write_file(to / "config.json", config.dump(2) + "\n");
  return bytes;
}

}  // namespace nibble
