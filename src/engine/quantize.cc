#include "engine/quantize.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <numeric>

#include "base/error.h"
#include "base/naming.h"
#include "base/read_file.h"
#include "base/worker_pool.h"
#include "checkpoint/output_file.h"
#include "checkpoint/safetensors_writer.h"
#include "engine/engine.h"
#include "engine/quantize_files.h"
#include "text/regex.h"
#include "weights/importer_core.h"

namespace nibble {

namespace {

// How one matrix of the model is written, or one for each expert.
struct OutputMatrix {
  MatrixRequest request;  // of the file: latent attention's kv_b_proj is asked for whole
  std::string name;       // without ".weight"; the * stands for the expert's number
  MatrixInfo info;        // of the source
  bool is_fp4;
  std::string scale_group;  // matrices of one group have one tensor scale, expert by expert: other engines fuse them
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
  for (const auto& [last, fused] :
       std::initializer_list<std::pair<std::string_view, std::string_view>>{{".q_proj", ".qkv"},
                                                                            {".k_proj", ".qkv"},
                                                                            {".v_proj", ".qkv"},
                                                                            {".q_a_proj", ".qkv_a"},
                                                                            {".kv_a_proj_with_mqa", ".qkv_a"},
                                                                            {".gate_proj", ".gate_up"},
                                                                            {".up_proj", ".gate_up"},
                                                                            {".w1", ".gate_up"},
                                                                            {".w3", ".gate_up"}})
    if (name.ends_with(last)) return name.substr(0, name.size() - last.size()) + std::string(fused);
  return name;
}

// Of QuantizeOptions::keep.
struct KeptPattern {
  std::string text;
  Regex pattern;
  bool is_found = false;  // in the name of a matrix
};

class Quantizer {
 public:
  Quantizer(ModelFiles files, const QuantizeOptions& options)
      : files_(std::move(files)),
        options_(options),
        pool_(options.num_threads > 0 ? options.num_threads : default_num_threads()) {
    const DecoderConfig& c = files_.model->config;
    if (c.architecture == "gpt_oss")
      throw_input_error("{}: gpt_oss is not quantised: its experts are published in MXFP4, in a layout of their own",
                        files_.checkpoint->path.string());
    if ((c.moe || c.mla) && files_.checkpoint->container == Container::gguf)
      throw_input_error(
          "{}: a GGUF file with experts or latent attention is not quantised, since no config.json is made of its "
          "metadata; quantise from the original Hugging Face folder instead",
          files_.checkpoint->path.string());
    for (const std::string& pattern : options.keep)
      keep_.push_back({pattern, naming("keep", [&] { return Regex(pattern); })});
    choose();
    for (const KeptPattern& kept : keep_)
      if (!kept.is_found)
        throw_input_error("keep '{}': is found in the name of no matrix; {} is one of {}", kept.text,
                          matrices_.back().name, matrices_.size());
  }

  std::vector<QuantizedTensor> write(const std::filesystem::path& folder) {
    SafetensorsWriter writer(folder, specs());
    int64_t done = 0, all = 0;
    for (const OutputMatrix& m : matrices_) all += m.info.bytes;
    std::vector<QuantizedTensor> report;
    for (const OutputMatrix& m : matrices_) {
      report.push_back(m.is_fp4 ? write_fp4(writer, m) : write_kept(writer, m));
      done += m.info.bytes;
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
      if (!m.is_fp4)
        for (int64_t e = 0; e < m.info.E; e++) names.push_back(numbered(m.name, e));
    return names;
  }

  const ModelFiles& files() const { return files_; }
  bool output_is_tied() const { return files_.model->config.tied_embeddings && !unties_output_; }

 private:
  const VectorRequest& vector(WeightId id) const {
    return std::get<VectorRequest>(files_.model->weights.entries()[static_cast<size_t>(id.index)].what);
  }

  // Embedding and router always stay, and so does kv_b_proj, half of which becomes bfloat16 again when it is read.
  bool is_kept(const MatrixRequest& request, const std::string& name) {
    bool is_kept = name == "model.embed_tokens" || (name == "lm_head" && !options_.all) ||
                   request.name.gguf.ends_with("ffn_gate_inp") || request.name.gguf.ends_with("attn_kv_b");
    for (KeptPattern& kept : keep_) {
      size_t begin = 0, end = 0;
      if (Regex::Search(kept.pattern).find(name, 0, begin, end)) kept.is_found = is_kept = true;
    }
    return is_kept;
  }

  void add_matrix(const MatrixRequest& request, const std::string& name) {
    // Formats on both sides store whole groups; a matrix that does not consist of them stays.
    const bool is_fp4 = !is_kept(request, name) && request.K % group_size(options_.format) == 0;
    matrices_.push_back({request, name, files_.source->describe(request), is_fp4, fused_name(name)});
  }

  void choose() {
    const auto entries = files_.model->weights.entries();
    for (int i = 0; i < static_cast<int>(entries.size()); i++) {
      const auto* m = std::get_if<MatrixEntry>(&entries[static_cast<size_t>(i)].what);
      if (m == nullptr) {
        const auto values = files_.source->read_vector(vector(WeightId{i}));
        vectors_.push_back({WeightId{i}, fits_bf16(values) ? DType::bf16 : DType::f32});
      } else if (m->request.heads.head_rows == 0) {
        add_matrix(m->request, m->request.name.hf);
      } else if (!m->request.heads.transposed) {  // once for both slices
        if (!files_.source->has(m->request.name))
          throw_input_error(
              "{}: {} is there only as two parts, which no other program reads; quantise from the "
              "original Hugging Face folder instead",
              files_.checkpoint->path.string(), m->request.name.hf);
        add_matrix(sliced_matrix(m->request), m->request.name.hf);
      }
    }
    if (options_.all && files_.model->config.tied_embeddings) {
      const auto embedding = std::ranges::find(matrices_, "model.embed_tokens", &OutputMatrix::name);
      if (embedding == matrices_.end()) return;
      add_matrix(MatrixRequest(embedding->request), "lm_head");
      unties_output_ = matrices_.back().is_fp4;
      if (!unties_output_) matrices_.pop_back();
    }
  }

  std::vector<TensorSpec> specs() const {
    std::vector<TensorSpec> specs;
    for (const OutputMatrix& m : matrices_) {
      for (int64_t e = 0; e < m.info.E; e++) {
        const std::string name = numbered(m.name, e);
        if (!m.is_fp4) {
          specs.push_back({name + ".weight", dtype_for_kept(m.info.format), {m.info.N, m.info.K}});
          continue;
        }
        const std::vector<TensorSpec> fp4 = fp4_specs(name, options_.format, m.info.N, m.info.K);
        specs.insert(specs.end(), fp4.begin(), fp4.end());
      }
    }
    for (const OutputVector& v : vectors_) specs.push_back({vector(v.id).name.hf, v.dtype, {vector(v.id).size}});
    return specs;
  }

  // Calls work(row, its values) for the rows of all experts, on all workers; each call's result is added up.
  template <class Work>
  double sum_over_rows(const CanonicalWeight& w, const Work& work) {
    std::mutex mutex;
    double total = 0;
    std::exception_ptr failure;
    pool_.run([&](int worker) {
      const auto [first, last] = worker_range(w.E * w.N, 1, worker, pool_.num_threads());
      std::vector<float> values(static_cast<size_t>(w.K));
      double sum = 0;
      try {
        for (int64_t row = first; row < last; row++) {
          decode_row(w, row / w.N, row % w.N, values.data());
          sum += work(row, std::span<const float>(values));
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

  // The largest magnitude of each expert.
  std::vector<float> largest(const CanonicalWeight& w) {
    std::vector<float> rows(static_cast<size_t>(w.E * w.N));
    sum_over_rows(w, [&](int64_t row, std::span<const float> values) {
      float& most = rows[static_cast<size_t>(row)];
      for (float value : values) most = std::max(most, std::fabs(value));
      return 0.0;
    });
    std::vector<float> experts(static_cast<size_t>(w.E));
    for (size_t row = 0; row < rows.size(); row++) {
      float& most = experts[row / static_cast<size_t>(w.N)];
      most = std::max(most, rows[row]);
    }
    return experts;
  }

  // One for each expert.
  std::vector<float> tensor_scales(const OutputMatrix& m) {
    std::vector<float> scales(static_cast<size_t>(m.info.E), 1.0f);
    if (!has_tensor_scale(options_.format)) return scales;
    std::vector<float>& most = largest_[m.scale_group];
    if (most.empty()) {
      most.resize(scales.size());
      for (const OutputMatrix& other : matrices_) {
        if (!other.is_fp4 || other.scale_group != m.scale_group) continue;
        const std::vector<float> of_other = largest(files_.source->read(other.request));
        std::ranges::transform(most, of_other, most.begin(), [](float a, float b) { return std::max(a, b); });
      }
    }
    std::ranges::transform(most, scales.begin(), [&](float a) { return tensor_scale_for(options_.format, a); });
    return scales;
  }

  static QuantizedTensor row_of(const OutputMatrix& m, std::string_view to, size_t bytes,
                                const std::vector<double>& squared_errors, double squares) {
    const double sum = std::accumulate(squared_errors.begin(), squared_errors.end(), 0.0);
    return {m.name, std::string(format_name(m.info.format)), std::string(to), static_cast<int64_t>(bytes),
            squares > 0 ? std::sqrt(sum / squares) : 0.0};
  }

  QuantizedTensor write_fp4(SafetensorsWriter& writer, const OutputMatrix& m) {
    const std::vector<float> tensor_scale = tensor_scales(m);
    const CanonicalWeight w = files_.source->read(m.request);
    const int64_t num_rows = w.E * w.N;
    const int64_t row_codes = code_bytes(options_.format, w.K), row_scales = scale_bytes(options_.format, w.K);
    std::vector<uint8_t> codes(static_cast<size_t>(num_rows * row_codes));
    std::vector<uint8_t> scales(static_cast<size_t>(num_rows * row_scales));
    std::vector<double> errors(static_cast<size_t>(num_rows));
    const double squares = sum_over_rows(w, [&](int64_t row, std::span<const float> values) {
      uint8_t* row_code = codes.data() + row * row_codes;
      uint8_t* row_scale = scales.data() + row * row_scales;
      const float scale = tensor_scale[static_cast<size_t>(row / w.N)];
      encode_row(options_.format, values, scale, options_.search, row_code, row_scale);
      double sum = 0;
      visit_format(options_.format, [&](auto format) {
        for (size_t k = 0; k < values.size(); k++) {
          const double back = format.decode(row_code, row_scale, static_cast<int64_t>(k)) * scale;
          errors[static_cast<size_t>(row)] += (back - values[k]) * (back - values[k]);
          sum += static_cast<double>(values[k]) * values[k];
        }
      });
      return sum;
    });
    for (int64_t e = 0; e < w.E; e++)
      append_fp4(writer, numbered(m.name, e), options_.format, of_expert(codes, e, w.E), of_expert(scales, e, w.E),
                 tensor_scale[static_cast<size_t>(e)]);
    return row_of(m, format_name(options_.format), codes.size() + scales.size(), errors, squares);
  }

  QuantizedTensor write_kept(SafetensorsWriter& writer, const OutputMatrix& m) {
    const CanonicalWeight w = files_.source->read(m.request);
    const DType dtype = dtype_for_kept(m.info.format);
    const FormatId format = *plain_format(dtype);
    std::vector<uint8_t> bytes(static_cast<size_t>(dtype_bytes(dtype, w.E * w.N * w.K)));
    const size_t row_bytes = bytes.size() / static_cast<size_t>(std::max<int64_t>(w.E * w.N, 1));
    std::vector<double> errors(static_cast<size_t>(w.E * w.N));
    const double squares = sum_over_rows(w, [&](int64_t row, std::span<const float> values) {
      uint8_t* to = bytes.data() + static_cast<size_t>(row) * row_bytes;
      naming(numbered(m.name, row / w.N), [&] { encode_row(format, values, 1.0f, options_.search, to, nullptr); });
      double sum = 0;
      visit_format(format, [&](auto written) {
        for (size_t k = 0; k < values.size(); k++) {
          const double back = written.decode(to, nullptr, static_cast<int64_t>(k));
          errors[static_cast<size_t>(row)] += (back - values[k]) * (back - values[k]);
          sum += static_cast<double>(values[k]) * values[k];
        }
      });
      return sum;
    });
    for (int64_t e = 0; e < w.E; e++) writer.append(numbered(m.name, e) + ".weight", of_expert(bytes, e, w.E));
    return row_of(m, dtype_name(dtype), bytes.size(), errors, squares);
  }

  static std::span<const uint8_t> of_expert(std::span<const uint8_t> all, int64_t e, int64_t E) {
    const size_t size = all.size() / static_cast<size_t>(E);
    return all.subspan(static_cast<size_t>(e) * size, size);
  }

  void write_vector(SafetensorsWriter& writer, const OutputVector& v) {
    const VectorRequest& request = vector(v.id);
    const std::vector<float> values = files_.source->read_vector(request);
    std::vector<uint8_t> bytes(static_cast<size_t>(dtype_bytes(v.dtype, request.size)));
    encode_row(*plain_format(v.dtype), values, 1.0f, options_.search, bytes.data(), nullptr);
    writer.append(request.name.hf, bytes);
  }

  ModelFiles files_;
  const QuantizeOptions& options_;
  WorkerPool pool_;
  std::vector<KeptPattern> keep_;
  std::vector<OutputMatrix> matrices_;
  std::vector<OutputVector> vectors_;
  bool unties_output_ = false;
  std::map<std::string, std::vector<float>> largest_;  // of each expert, by scale_group
};

}  // namespace

std::vector<QuantizedTensor> quantize(const std::filesystem::path& from, const std::filesystem::path& to,
                                      const QuantizeOptions& options) {
  if (options.format != FormatId::nvfp4 && options.format != FormatId::mxfp4)
    throw_input_error("quantize writes NVFP4 or MXFP4, not {}", format_name(options.format));
  if (is_there(to / "config.json"))
    throw_input_error("{}: already holds a model; choose another folder or remove it first", to.string());
  Quantizer quantizer(open_model(from), options);
  nlohmann::ordered_json config = quantized_config(quantizer.files(), options.format, quantizer.kept_modules());
  config["tie_word_embeddings"] = quantizer.output_is_tied();
  const std::vector<TextFile> texts = text_files(*quantizer.files().checkpoint);  // what cannot be read is found before
  std::vector<QuantizedTensor> report = quantizer.write(to);
  for (const TextFile& text : texts) write_file(to / text.name, text.contents);
  write_file(to / "config.json", config.dump(2) + "\n");
  return report;
}

}  // namespace nibble
