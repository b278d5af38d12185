#include "engine/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>

#include "base/error.h"
#include "base/worker_pool.h"
#include "checkpoint/output_file.h"
#include "checkpoint/safetensors_writer.h"
#include "engine/engine.h"
#include "engine/quantize_files.h"
#include "text/regex.h"

namespace nibble {

namespace {

// How one matrix of the model is written.
struct OutputMatrix {
  WeightId id;
  std::string name;  // without ".weight"
  bool is_fp4;
  DType dtype;              // of a matrix that stays
  std::string scale_group;  // matrices of one group have one tensor scale: other engines fuse them
};

struct OutputVector {
  WeightId id;
  DType dtype;
};

// A matrix that stays is written in its own float type; integer codes with half scales become halves, MXFP4 is exact in
// bfloat16, FP8 and affine integers have float32 scales.
DType dtype_for_kept(FormatId format) {
  switch (format) {
    case FormatId::bf16:
    case FormatId::mxfp4: return DType::bf16;
    case FormatId::f32:
    case FormatId::nvfp4:
    case FormatId::fp8:
    case FormatId::fp8_128:
    case FormatId::affine4_32:
    case FormatId::affine4_64:
    case FormatId::affine4_128:
    case FormatId::affine8_32:
    case FormatId::affine8_64:
    case FormatId::affine8_128: return DType::f32;
    default: return DType::f16;
  }
}

bool fits_bf16(std::span<const float> values) {
  return std::ranges::all_of(values, [](float v) { return bf16_to_float(float_to_bf16(v)) == v; });
}

// "model.layers.3.self_attn.q_proj" → "model.layers.3.self_attn.qkv": what vLLM and others fuse into one matrix.
std::string fused_name(const std::string& name) {
  const auto replace = [&](std::string_view last, std::string_view fused) {
    return name.substr(0, name.size() - last.size()) + std::string(fused);
  };
  for (std::string_view last : {"q_proj", "k_proj", "v_proj"})
    if (name.ends_with(last)) return replace(last, "qkv");
  for (std::string_view last : {"gate_proj", "up_proj"})
    if (name.ends_with(last)) return replace(last, "gate_up");
  return name;
}

class Quantizer {
 public:
  Quantizer(ModelFiles files, const QuantizeOptions& options)
      : files_(std::move(files)),
        options_(options),
        pool_(options.num_threads > 0 ? options.num_threads : default_num_threads()) {
    const DecoderConfig& c = files_.model->config;
    if (c.moe || c.mla)
      throw_input_error("{}: {} has experts or latent attention; only dense models are quantised",
                        files_.checkpoint->path.string(), c.architecture);
    for (const std::string& pattern : options.keep) keep_.emplace_back(pattern);
    choose();
  }

  std::vector<QuantizedTensor> write(const std::filesystem::path& folder) {
    SafetensorsWriter writer(folder, specs());
    int64_t done = 0, all = 0;
    for (const OutputMatrix& m : matrices_) all += entry(m.id).bytes();
    std::vector<QuantizedTensor> report;
    for (const OutputMatrix& m : matrices_) {
      report.push_back(m.is_fp4 ? write_fp4(writer, m) : write_kept(writer, m));
      done += entry(m.id).bytes();
      if (options_.progress) options_.progress(done, all);
    }
    for (const OutputVector& v : vectors_) write_vector(writer, v);
    writer.finish();
    return report;
  }

  // Modules that the folder's readers expect unquantised.
  std::vector<std::string> kept_modules() const {
    std::vector<std::string> names;
    for (const OutputMatrix& m : matrices_)
      if (!m.is_fp4) names.push_back(m.name);
    return names;
  }

  const ModelFiles& files() const { return files_; }
  bool output_is_tied() const { return files_.model->config.tied_embeddings && !unties_output_; }

 private:
  const WeightEntry& entry(WeightId id) const { return files_.model->weights.entries()[static_cast<size_t>(id.index)]; }
  const MatrixEntry& matrix(WeightId id) const { return std::get<MatrixEntry>(entry(id).what); }
  CanonicalWeight read(WeightId id) const { return files_.source->read(matrix(id).request); }

  bool is_kept(const std::string& name) const {
    const bool is_embedding = name == "model.embed_tokens", is_output = name == "lm_head";
    if (is_embedding || (is_output && !options_.all)) return true;
    return std::ranges::any_of(keep_, [&](const Regex& pattern) {
      size_t begin = 0, end = 0;
      return Regex::Search(pattern).find(name, 0, begin, end);
    });
  }

  void choose() {
    const int64_t group = group_size(options_.format);
    const auto entries = files_.model->weights.entries();
    for (int i = 0; i < static_cast<int>(entries.size()); i++) {
      const WeightId id{i};
      if (const auto* m = std::get_if<MatrixEntry>(&entries[static_cast<size_t>(i)].what)) {
        const std::string& name = m->request.name.hf;
        // Formats on both sides store whole groups; a matrix that does not consist of them stays.
        const bool fp4 = !is_kept(name) && m->info.K % group == 0;
        matrices_.push_back({id, name, fp4, dtype_for_kept(m->info.format), fused_name(name)});
      } else {
        const auto values = files_.source->read_vector(std::get<VectorRequest>(entries[static_cast<size_t>(i)].what));
        vectors_.push_back({id, fits_bf16(values) ? DType::bf16 : DType::f32});
      }
    }
    if (options_.all && files_.model->config.tied_embeddings && !is_kept("lm_head")) {
      const auto embedding = std::ranges::find(matrices_, "model.embed_tokens", &OutputMatrix::name);
      if (embedding != matrices_.end() && matrix(embedding->id).info.K % group == 0) {
        matrices_.push_back({embedding->id, "lm_head", true, DType::bf16, "lm_head"});
        unties_output_ = true;
      }
    }
  }

  std::vector<TensorSpec> specs() const {
    std::vector<TensorSpec> specs;
    for (const OutputMatrix& m : matrices_) {
      const MatrixInfo& info = matrix(m.id).info;
      if (!m.is_fp4) {
        specs.push_back({m.name + ".weight", m.dtype, {info.N, info.K}});
        continue;
      }
      const std::vector<TensorSpec> fp4 = fp4_specs(m.name, options_.format, info.N, info.K);
      specs.insert(specs.end(), fp4.begin(), fp4.end());
    }
    for (const OutputVector& v : vectors_) {
      const auto& request = std::get<VectorRequest>(entry(v.id).what);
      specs.push_back({request.name.hf, v.dtype, {request.size}});
    }
    return specs;
  }

  // Calls work(row n, its values) for all rows, on all workers; each call's result is added up.
  template <class Work>
  double sum_over_rows(const CanonicalWeight& w, const Work& work) {
    std::mutex mutex;
    double total = 0;
    std::exception_ptr failure;
    pool_.run([&](int worker) {
      const auto [first, last] = worker_range(w.N, 1, worker, pool_.num_threads());
      std::vector<float> row(static_cast<size_t>(w.K));
      double sum = 0;
      try {
        for (int64_t n = first; n < last; n++) {
          decode_row(w, 0, n, row.data());
          sum += work(n, std::span<const float>(row));
        }
      } catch (...) {
        const std::lock_guard lock(mutex);
        failure = std::current_exception();
      }
      const std::lock_guard lock(mutex);
      total += sum;
    });
    if (failure) std::rethrow_exception(failure);
    return total;
  }

  float largest(const CanonicalWeight& w) {
    std::vector<float> rows(static_cast<size_t>(w.N));
    sum_over_rows(w, [&](int64_t n, std::span<const float> row) {
      float& most = rows[static_cast<size_t>(n)];
      for (float value : row) most = std::max(most, std::fabs(value));
      return 0.0;
    });
    return rows.empty() ? 0 : *std::ranges::max_element(rows);
  }

  float tensor_scale(const OutputMatrix& m) {
    const auto [it, is_new] = largest_.try_emplace(m.scale_group, 0.0f);
    if (is_new)
      for (const OutputMatrix& other : matrices_)
        if (other.is_fp4 && other.scale_group == m.scale_group)
          it->second = std::max(it->second, largest(read(other.id)));
    return tensor_scale_for(options_.format, it->second);
  }

  static QuantizedTensor row_of(const OutputMatrix& m, const MatrixInfo& info, std::string_view to, size_t bytes,
                                double squared_errors, double squares) {
    return {m.name, std::string(format_name(info.format)), std::string(to), static_cast<int64_t>(bytes),
            squares > 0 ? std::sqrt(squared_errors / squares) : 0.0};
  }

  QuantizedTensor write_fp4(SafetensorsWriter& writer, const OutputMatrix& m) {
    const float scale = tensor_scale(m);
    const CanonicalWeight w = read(m.id);
    const int64_t row_codes = code_bytes(options_.format, w.K), row_scales = scale_bytes(options_.format, w.K);
    std::vector<uint8_t> codes(static_cast<size_t>(w.N * row_codes)), scales(static_cast<size_t>(w.N * row_scales));
    std::vector<double> errors(static_cast<size_t>(w.N));
    const double squares = sum_over_rows(w, [&](int64_t n, std::span<const float> row) {
      uint8_t* row_code = codes.data() + n * row_codes;
      uint8_t* row_scale = scales.data() + n * row_scales;
      encode_row(options_.format, row, scale, options_.search, row_code, row_scale);
      double sum = 0;
      visit_format(options_.format, [&](auto format) {
        for (size_t k = 0; k < row.size(); k++) {
          const double back = format.decode(row_code, row_scale, static_cast<int64_t>(k)) * scale;
          errors[static_cast<size_t>(n)] += (back - row[k]) * (back - row[k]);
          sum += static_cast<double>(row[k]) * row[k];
        }
      });
      return sum;
    });
    double squared_errors = 0;
    for (double error : errors) squared_errors += error;
    append_fp4(writer, m.name, options_.format, codes, scales, scale);
    return row_of(m, matrix(m.id).info, format_name(options_.format), codes.size() + scales.size(), squared_errors,
                  squares);
  }

  QuantizedTensor write_kept(SafetensorsWriter& writer, const OutputMatrix& m) {
    const CanonicalWeight w = read(m.id);
    std::vector<uint8_t> bytes(static_cast<size_t>(dtype_bytes(m.dtype, w.N * w.K)));
    const size_t row_bytes = bytes.size() / static_cast<size_t>(std::max<int64_t>(w.N, 1));
    std::vector<double> errors(static_cast<size_t>(w.N));
    const double squares = sum_over_rows(w, [&](int64_t n, std::span<const float> row) {
      uint8_t* to = bytes.data() + static_cast<size_t>(n) * row_bytes;
      double sum = 0;
      for (size_t k = 0; k < row.size(); k++) {
        const double error = store(row[k], m.dtype, to, k) - static_cast<double>(row[k]);
        errors[static_cast<size_t>(n)] += error * error;
        sum += static_cast<double>(row[k]) * row[k];
      }
      return sum;
    });
    double squared_errors = 0;
    for (double error : errors) squared_errors += error;
    writer.append(m.name + ".weight", bytes);
    return row_of(m, matrix(m.id).info, dtype_name(m.dtype), bytes.size(), squared_errors, squares);
  }

  void write_vector(SafetensorsWriter& writer, const OutputVector& v) {
    const auto& request = std::get<VectorRequest>(entry(v.id).what);
    const std::vector<float> values = files_.source->read_vector(request);
    std::vector<uint8_t> bytes(static_cast<size_t>(dtype_bytes(v.dtype, request.size)));
    for (size_t i = 0; i < values.size(); i++) store(values[i], v.dtype, bytes.data(), i);
    writer.append(request.name.hf, bytes);
  }

  // Writes value i of a row in a float type and returns what can be read back.
  static double store(float value, DType dtype, uint8_t* to, size_t i) {
    if (dtype == DType::f32) {
      std::memcpy(to + 4 * i, &value, 4);
      return value;
    }
    const uint16_t bits = dtype == DType::bf16 ? float_to_bf16(value) : float_to_half(value);
    std::memcpy(to + 2 * i, &bits, 2);
    return dtype == DType::bf16 ? bf16_to_float(bits) : half_to_float(bits);
  }

  ModelFiles files_;
  const QuantizeOptions& options_;
  WorkerPool pool_;
  std::vector<Regex> keep_;
  std::vector<OutputMatrix> matrices_;
  std::vector<OutputVector> vectors_;
  bool unties_output_ = false;
  std::map<std::string, float> largest_;  // by scale_group
};

}  // namespace

std::vector<QuantizedTensor> quantize(const std::filesystem::path& from, const std::filesystem::path& to,
                                      const QuantizeOptions& options) {
  if (options.format != FormatId::nvfp4 && options.format != FormatId::mxfp4)
    throw_input_error("quantize writes NVFP4 or MXFP4, not {}", format_name(options.format));
  if (std::filesystem::exists(to / "config.json"))
    throw_input_error("{}: already holds a model; choose another folder or remove it first", to.string());
  Quantizer quantizer(open_model(from), options);
  nlohmann::ordered_json config = quantized_config(quantizer.files(), options.format, quantizer.kept_modules());
  config["tie_word_embeddings"] = quantizer.output_is_tied();
  std::vector<QuantizedTensor> report = quantizer.write(to);
  write_text_files(*quantizer.files().checkpoint, to);
  write_file(to / "config.json", config.dump(2) + "\n");
  return report;
}

}  // namespace nibble
